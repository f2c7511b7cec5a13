"""A model at another length is the same function of its tokens, unless positions end."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.config.model import LONGEST, POSITIONS
from gpt2_jax.errors import UserError
from gpt2_jax.model.build import build_model
from gpt2_jax.model.lengths import at_length, params_at_length

_UNBOUNDED = [name for name in POSITIONS if name != "learned"]


def hidden(model, params, ids):
    return np.asarray(jax.jit(lambda p: model.apply({"params": p}, ids)[0])(params))


@pytest.mark.parametrize(
    ("position", "length"),
    [
        ("relative", 24),
        ("relative", 7),
        ("learned", 7),
        *(
            pytest.param(name, 24, marks=pytest.mark.slow)
            for name in _UNBOUNDED
            if name != "relative"
        ),
    ],
)
def test_parameters_at_another_length_compute_what_the_model_computes(
    tiny, noisy_params, tokens, position, length
):
    model = tiny(position=position)
    params, ids = noisy_params(model), tokens(model, length=length)
    resized = params_at_length(model.config, params, length)
    other = build_model(at_length(model.config, length), model.compute)
    assert other.config == dataclasses.replace(model.config, context_length=length)
    np.testing.assert_allclose(
        hidden(other, resized, ids), hidden(model, params, ids), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("position", POSITIONS)
def test_at_the_trained_length_nothing_is_changed(tiny, noisy_params, position):
    model = tiny(position=position)
    params = noisy_params(model)
    assert params_at_length(model.config, params, 16) is params
    assert at_length(model.config, 16) == model.config


def test_only_learned_positions_end_at_the_context():
    for position in POSITIONS:
        config = ModelConfig(2, 4, 32, 16, vocab_size=61, position=position)
        assert config.longest == (16 if position == "learned" else LONGEST)
        assert dataclasses.replace(config, context_length=2 * LONGEST).longest == 2 * LONGEST
    learned, none = (ModelConfig(1, 1, 8, 16, position=name) for name in ("learned", "none"))
    with pytest.raises(UserError, match=r"--n=17 exceeds .* of 16, beyond which model\.position=l"):
        at_length(learned, 17, "--n")
    with pytest.raises(UserError, match=f"context_length={LONGEST + 1} exceeds the {LONGEST} tok"):
        at_length(none, LONGEST + 1)
