"""Factors of the learning rate by name scale whole updates, by every optimizer and with muP."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.rates import rate_multipliers
from gpt2_jax.training.state import abstract_state
from tests.training.tiny import make_config
from tests.training.updates import check_ten_updates, drawn, lowered, moves, named

_MULTIPLIERS = "wte=0.1,h.*.mlp=0.5,h.attn.c_attn.bias=3,ln_f=2"


def factor_of(name):
    """What `_MULTIPLIERS` says of a parameter, written down a second time."""
    if name == "wte":
        return 0.1
    if "/mlp/" in name:
        return 0.5
    if name == "h/attn/c_attn/bias":
        return 3.0
    return 2.0 if name.startswith("ln_f") else 1.0


@pytest.mark.parametrize(
    ("knobs", "mup"),
    [
        ({"optimizer__name": "adamw"}, True),
        ({"optimizer__name": "adamw", "compute__plain": True}, True),
        pytest.param({"optimizer__name": "adamw"}, False, marks=pytest.mark.slow),
        pytest.param({"optimizer__mup_independent_decay": False}, True, marks=pytest.mark.slow),
        pytest.param({"optimizer__name": "lion"}, False, marks=pytest.mark.slow),
        pytest.param({"optimizer__name": "muon"}, True, marks=pytest.mark.slow),
        pytest.param({"optimizer__name": "adafactor"}, False, marks=pytest.mark.slow),
    ],
)
def test_an_update_with_its_decay_is_scaled_by_name(knobs, mup):
    knobs = {"optimizer__weight_decay": 0.5, **knobs}
    if mup:
        knobs["model__mup_base_width"] = 8
    with_factors = make_config(optimizer__rate_multipliers=_MULTIPLIERS, **knobs)
    without = make_config(**knobs)
    params, gradients = drawn(0, without.model, 0.1), [drawn(1, without.model)]
    scaled, plain = (moves(config, gradients, params) for config in (with_factors, without))
    assert {factor_of(name) for name in plain} == {0.1, 0.5, 1.0, 2.0, 3.0}
    for name, expected in plain.items():
        np.testing.assert_allclose(
            scaled[name], factor_of(name) * expected, rtol=1e-3, atol=2e-6, err_msg=name
        )


@pytest.mark.slow
def test_ten_updates_in_one_pass_are_those_of_optax():
    config = make_config(optimizer__rate_multipliers=_MULTIPLIERS, model__mup_base_width=8)
    check_ten_updates(config)


def test_the_first_pattern_that_matches_counts():
    config = make_config(optimizer__rate_multipliers="h.mlp.c_fc.bias=2, h.mlp=0.5,*=4")
    factors = named(rate_multipliers(config.optimizer, drawn(0, config.model)))
    assert factors["h/mlp/c_fc/bias"] == 2 and factors["h/mlp/c_fc/kernel"] == 0.5
    assert factors["wte"] == factors["ln_f/scale"] == factors["h/attn/c_proj/kernel"] == 4


@pytest.mark.slow
def test_factors_of_one_change_nothing_in_the_step():
    standard, ones, other = (
        # The links of the chain have numbers in the names of the arguments.
        re.sub(r"opt_state[\w.\[\]]*", "opt_state", lowered(make_config(**knobs)))
        for knobs in ({}, *({"optimizer__rate_multipliers": f"wte={x},h.mlp=1"} for x in (1, 2)))
    )
    assert ones == standard != other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wte", "'wte' is not NAME=FACTOR with a finite factor above 0, such as wte=0.1"),
        ("wte=-1", "'wte=-1' is not NAME=FACTOR"),
        ("wte=fast", "'wte=fast' is not NAME=FACTOR"),
        ("wte=inf", "'wte=inf' is not NAME=FACTOR"),
        ("=0.1", "'=0.1' is not NAME=FACTOR"),
        ("wte=0.1,", "'' is not NAME=FACTOR"),
        ("wte=0.0", r"wte=0 would train nothing .* use --config\.optimizer\.freeze=wte"),
        ("wte=1,wte=2", "names wte twice: give it one factor"),
    ],
)
def test_what_is_no_factor_is_refused(text, expected):
    with pytest.raises(UserError, match=f"optimizer.rate_multipliers:? {expected}"):
        from_dict({"optimizer": {"rate_multipliers": text}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wtee=0.1", "'wtee' matches no parameter of this model: name one of h, "),
        ("h.mlp=2,h.mlp.c_fc=3", "'h.mlp.c_fc' has no effect, because the first pattern"),
    ],
)
def test_a_pattern_without_effect_is_refused_before_anything_is_computed(text, expected):
    config = make_config(optimizer__rate_multipliers=text)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    with pytest.raises(UserError, match=f"optimizer.rate_multipliers: {expected}"):
        abstract_state(config, make_optimizer(config), mesh, Rules())
