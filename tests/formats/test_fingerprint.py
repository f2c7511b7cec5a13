"""Tests the name that a model has by its values."""

from __future__ import annotations

import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.formats.base import fingerprint

CONFIG = ModelConfig(num_layers=1, num_heads=1, d_model=2, vocab_size=3, context_length=4)


def test_padded_rows_do_not_count_and_numbers_do() -> None:
    params = {"wte": jnp.ones((3, 2)), "x0_lambda": jnp.float32(0.5)}
    padded = params | {"wte": jnp.ones((8, 2))}
    assert fingerprint(padded, CONFIG) == fingerprint(params, CONFIG)
    other = params | {"x0_lambda": jnp.float32(0.25)}
    assert fingerprint(other, CONFIG) != fingerprint(params, CONFIG)
