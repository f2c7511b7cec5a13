"""Tests for `optimizer.freeze`: frozen parameters keep their values, and have no state."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.experiment import dry_run
from gpt2_jax.formats.load import load
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.trainable import joined, names, split, trained_names
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.memory import state_bytes
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, boxed_state, init_state
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import lines, make_config, make_setup, seen_whole_and_halved

FROZEN = "wte,wpe,h.*.mlp"
FREEZE = {"optimizer__freeze": FROZEN, "optimizer__ema_decay": 0.5, "eval__every": 3}
SHORT = {"train__total_steps": 6, "checkpoint__every": 3, "log__norms_every": 1}


def _is_frozen(name):
    return name in ("wte", "wpe") or name.startswith("h.mlp")


def _by_name(tree):
    return dict(zip(names(tree), jax.tree.leaves(tree), strict=True))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """(folder, what an evaluator saw in a whole run and in one of two halves)."""
    folder = tmp_path_factory.mktemp("frozen")
    tokenizer = ByteTokenizer().to_dict()  # so that the run can be loaded
    config = make_config(**FREEZE, **SHORT)
    return folder, seen_whole_and_halved(config, folder, tokenizer=tokenizer)


def test_frozen_parameters_stay_to_the_bit_and_the_others_move(seen):
    folder, (whole, _) = seen
    config = make_config(**FREEZE, **SHORT)
    run = Trainer(config, folder / "new", make_setup(config)).constants
    initial = _by_name(jax.device_get(init_state(config, run.optimizer, run.abstract).params))
    last = _by_name(whole[-2])  # the average is seen after the parameters
    for name, leaf in last.items():
        assert np.array_equal(leaf, initial[name]) == _is_frozen(name), name
    for average in (whole[-1], whole[1]):
        assert jax.tree.structure(average) == jax.tree.structure(whole[-2])
        np.testing.assert_array_equal(average["wte"], whole[-2]["wte"])


def test_a_resumed_run_equals_one_that_was_not_stopped_to_the_bit(seen):
    _, (whole, halves) = seen
    jax.tree.map(np.testing.assert_array_equal, whole[-2:], halves[-2:])


def test_gradient_norms_are_those_of_trained_parameters(seen):
    folder, _ = seen
    of_step = {}
    for line in lines(folder / "whole"):
        of_step.setdefault(line["step"], {}).update(line)
    norms = {name: x for name, x in of_step[3].items() if name.startswith("grad_norm/")}
    assert norms
    assert not any("mlp" in name or "wte" in name or "wpe" in name for name in norms)
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(of_step[3]["grad_norm"], rel=1e-5)


def test_the_average_is_read_with_frozen_parameters_as_they_are(seen):
    folder, (whole, _) = seen
    read = load(folder / "whole", ema=True).params
    jax.tree.map(np.testing.assert_array_equal, read, whole[-1])


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon", "adafactor"])
def test_only_trained_parameters_have_optimizer_state(optimizer):
    config = make_config(optimizer__freeze=FROZEN, optimizer__name=optimizer)
    state = boxed_state(config, make_optimizer(config))
    paths = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if leaf.size > 1
    ]
    assert paths
    assert not [path for path in paths if "wte" in path or "wpe" in path or "mlp" in path]
    assert set(names(state.params)) == set(
        names(boxed_state(make_config(), make_optimizer(make_config())).params)
    )


def test_plans_and_dry_runs_count_what_is_trained():
    config = make_config(optimizer__freeze=FROZEN)
    report = dry_run(config)
    everything = dry_run(make_config())
    frozen = 61 * 32 + 16 * 32 + 2 * (2 * 32 * 128 + 128 + 32)
    assert report["parameters"] == num_params(config.model) == everything["trained_parameters"]
    assert report["trained_parameters"] == report["parameters"] - frozen
    mesh = make_mesh(config.mesh)
    memory = state_bytes(config, abstract_state(config, make_optimizer(config), mesh, Rules()))
    assert memory == report["memory_bytes"]
    assert memory["gradients"] == 4 * report["trained_parameters"]
    assert memory["optimizer"] == pytest.approx(2 * memory["gradients"], abs=16)
    assert memory["parameters"] == everything["memory_bytes"]["parameters"]


def test_splitting_and_joining_is_the_identity():
    config = make_config(optimizer__freeze=FROZEN)
    params = boxed_state(config, make_optimizer(config)).params
    trained, frozen = split(params, trained_names(config, params))
    assert set(names(frozen)) == {name for name in names(params) if _is_frozen(name)}
    assert "mlp" not in trained["h"]
    assert jax.tree.structure(joined(trained, frozen)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("wte,h.0.mlp", "optimizer.freeze: 'h.0.mlp' matches no parameter of this model: name one"),
        ("*", "freezes every parameter"),
        ("h,ln_f,wte,wpe", "freezes every parameter"),
    ],
)
def test_what_cannot_be_frozen_is_refused(freeze, words):
    config = make_config(optimizer__freeze=freeze)
    with pytest.raises(UserError, match=words.replace("*", r"\*")):
        dry_run(config)


def test_an_empty_pattern_is_refused_at_once():
    with pytest.raises(UserError, match=r"optimizer.freeze='wte,,wpe' has an empty pattern"):
        make_config(optimizer__freeze="wte,,wpe")
