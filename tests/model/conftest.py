from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.gpt2 import GPT2

TINY = ModelConfig(
    num_layers=2,
    num_heads=4,
    d_model=32,
    context_length=16,
    vocab_size=61,
    vocab_multiple=8,
    dtype="float32",
    loss_chunk=0,
)


@pytest.fixture
def tiny():
    def make(**changes) -> ModelConfig:
        return dataclasses.replace(TINY, **changes)

    return make


@pytest.fixture
def noisy_params():
    """Parameters in which no tensor is at a value that hides a mistake, such as 0 or 1."""

    def make(config: ModelConfig, seed: int = 0):
        rng = np.random.default_rng(seed)

        def noise(path, leaf):
            mean = 1.0 if path[-1].key == "scale" else 0.0
            return jnp.asarray(rng.normal(mean, 0.2, leaf.shape), leaf.dtype)

        tokens = jax.ShapeDtypeStruct((1, config.context_length), jnp.int32)
        variables = jax.eval_shape(GPT2(config).init, jax.random.key(0), tokens)
        return jax.tree_util.tree_map_with_path(noise, nn.unbox(variables["params"]))

    return make


@pytest.fixture
def tokens():
    def make(config: ModelConfig, rows: int = 3, length: int | None = None, seed: int = 1):
        rng = np.random.default_rng(seed)
        shape = (rows, length or config.context_length)
        return jnp.asarray(rng.integers(0, config.vocab_size, shape), jnp.int32)

    return make
