"""Knobs of muP that would do nothing, or that nothing can honor, are refused by name."""

from __future__ import annotations

import pytest

from gpt2_jax.config import OptimizerConfig, from_dict
from gpt2_jax.config.mup import _OPTIMIZERS
from gpt2_jax.config.sections import OPTIMIZERS
from tests.config.lines import mistake


@pytest.mark.parametrize(
    ("name", "value"),
    [("mup_base_head_dim", 64), ("mup_input_alpha", 2.0), ("mup_output_alpha", 0.5)],
)
def test_knobs_without_a_base_width_are_refused(name, value):
    message = mistake(model={name: value})
    assert message.startswith(f"model.{name}={value:g} has no effect without muP")
    assert "set model.mup_base_width" in message
    from_dict({"model": {name: value, "mup_base_width": 256}})


def test_an_optimizer_without_rates_is_refused():
    sections = {"model": {"mup_base_width": 256}}
    message = mistake(**sections, optimizer={"name": "adafactor"})
    assert message.startswith("optimizer.name=adafactor has no learning rates for muP")
    assert "model.mup_base_width=256" in message and "adamw, lion, muon" in message
    assert set(_OPTIMIZERS) == set(OPTIMIZERS) - {"adafactor"}
    for name in _OPTIMIZERS:
        config = from_dict({**sections, "optimizer": {"name": name}})
        assert config.optimizer == OptimizerConfig(name=name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention_scale": 0.5}, "model.attention_scale=0.5"),
        ({"scale_attn_weights": False}, "model.scale_attn_weights=false"),
    ],
)
def test_two_factors_of_scores_are_refused(changes, named):
    base = {"mup_base_width": 256, "mup_base_head_dim": 32}
    message = mistake(model={**base, **changes})
    assert message.startswith(f"model.mup_base_head_dim=32 and {named} both set")
    from_dict({"model": {"mup_base_width": 256, **changes}})
