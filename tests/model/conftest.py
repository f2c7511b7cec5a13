from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.model.build import abstract_params, build_model
from gpt2_jax.model.gpt2 import GPT2

_MODEL = ModelConfig(
    num_layers=2, num_heads=4, d_model=32, context_length=16, vocab_size=61, vocab_multiple=8
)
_COMPUTE = ComputeConfig(dtype="float32", loss_chunk=0)
_COMPUTE_KNOBS = {field.name for field in dataclasses.fields(ComputeConfig)}


@pytest.fixture(scope="session")
def tiny():
    """Makes a small module; `changes` are knobs of its `config` or its `compute`."""

    def make(*, scanned: bool = True, train: bool = False, **changes) -> GPT2:
        of_compute = {name: changes.pop(name) for name in _COMPUTE_KNOBS & set(changes)}
        model = dataclasses.replace(_MODEL, **changes)
        compute = dataclasses.replace(_COMPUTE, **of_compute)
        return build_model(model, compute, scanned=scanned, train=train)

    return make


@pytest.fixture(scope="session")
def noisy_params():
    """Makes scanned parameters with no tensor at a value that hides a mistake, such as 0 or 1."""

    def make(model: GPT2, seed: int = 0):
        rng = np.random.default_rng(seed)

        def noise(path, leaf):
            mean = 1.0 if path[-1].key == "scale" else 0.0
            return jnp.asarray(rng.normal(mean, 0.2, leaf.shape), leaf.dtype)

        return jax.tree_util.tree_map_with_path(noise, abstract_params(model.config))

    return make


@pytest.fixture(scope="session")
def tokens():
    """Makes random tokens [rows, length] for a model, by default as long as its context."""

    def make(model: GPT2, rows: int = 3, length: int | None = None, seed: int = 1):
        rng = np.random.default_rng(seed)
        shape = (rows, length or model.config.context_length)
        return jnp.asarray(rng.integers(0, model.config.vocab_size, shape), jnp.int32)

    return make
