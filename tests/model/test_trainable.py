"""Tests for the names of parameters and the patterns that match them."""

from __future__ import annotations

import pytest
from jax import eval_shape, random

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.build import boxed_params
from gpt2_jax.model.trainable import check_patterns, groups, matches, names

_CONFIG = ModelConfig(num_layers=2, num_heads=2, d_model=16, context_length=8, vocab_size=32)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("wte", "wte"),
        ("ln_f", "ln_f.scale"),
        ("ln_f.scale", "ln_f.scale"),
        ("h", "h.attn.c_attn.kernel"),
        ("h.mlp", "h.mlp.c_fc.kernel"),
        ("h.*.mlp", "h.mlp.c_fc.kernel"),
        ("h.*.mlp.c_fc.bias", "h.mlp.c_fc.bias"),
        ("h.*", "h.ln_1.scale"),
        ("h.*.c_proj", "h.attn.c_proj.kernel"),
        ("*.bias", "h.attn.c_attn.bias"),
        ("*", "wpe"),
    ],
)
def test_a_pattern_matches_a_name_or_a_group_that_contains_it(pattern, name):
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("wte", "wte2"),
        ("h.m", "h.mlp.c_fc.kernel"),
        ("mlp", "h.mlp.c_fc.kernel"),
        ("h.*.mlp", "h.attn.c_attn.kernel"),
        ("h.0.mlp", "h.mlp.c_fc.kernel"),
        ("ln_f.bias", "ln_f.scale"),
        ("WTE", "wte"),
    ],
)
def test_a_pattern_does_not_match_what_only_resembles_it(pattern, name):
    assert not matches(pattern, name)


def test_names_and_groups_of_a_model():
    params = eval_shape(lambda: boxed_params(_CONFIG, random.key(0)))
    found = names(params)
    assert {"wte", "wpe", "ln_f.scale", "h.attn.c_attn.kernel", "h.mlp.c_proj.bias"} <= set(found)
    assert {"h", "h.attn", "h.attn.c_attn", "ln_f", "wte"} <= set(groups(found))
    assert "ln_f.scale" not in groups(found)


def test_a_pattern_that_matches_nothing_is_refused_with_the_groups():
    found = names(eval_shape(lambda: boxed_params(_CONFIG, random.key(0))))
    check_patterns("optimizer.freeze", ["wte", "h.*.mlp"], found)
    with pytest.raises(UserError, match=r"optimizer.freeze: 'h.0.mlp' matches no .* h.mlp, .* wte"):
        check_patterns("optimizer.freeze", ["wte", "h.0.mlp"], found)
