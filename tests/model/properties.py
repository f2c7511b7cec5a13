"""Checks properties that every variant of the model has, whatever its positions and its norm.

A variant compiles three programs, and each test compares what they return: the whole sequence by
scanned blocks on one device, the same on eight devices, and chunks through a cache by unrolled
blocks.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import MeshConfig
from gpt2_jax.model.build import boxed_params
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.params import unstack
from gpt2_jax.model.positions import unused_axes
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context, shardings

DOCUMENTS = (5, 1, 10)  # tokens; together they fill a row of the context
_CHUNK = 4


class Variant(NamedTuple):
    """Holds a module, its parameters, and rows of tokens whose documents are packed or alone.

    Row 0 holds all documents one after another, row 1 the same tokens as one document, and each of
    the others begins with one document.
    """

    model: GPT2
    params: Any
    tokens: np.ndarray
    segments: np.ndarray

    def hidden(self, axes: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray:
        """Returns the hidden states of all rows, computed on a mesh of these axes."""
        return _hidden(self.model, axes, self)


def make_variant(model: GPT2, params: Any) -> Variant:
    """Returns the variant, with random tokens."""
    T = model.config.context_length
    rng = np.random.default_rng(4)
    tokens = rng.integers(0, model.config.vocab_size, (8, T))
    segments = np.zeros_like(tokens)
    tokens[1] = tokens[0]
    segments[0] = np.repeat(np.arange(len(DOCUMENTS)), DOCUMENTS)
    for row, document in enumerate(np.split(tokens[0], np.cumsum(DOCUMENTS)[:-1]), start=2):
        tokens[row, : len(document)] = document
        segments[row, len(document) :] = 1
    return Variant(model, params, tokens.astype(np.int32), segments.astype(np.int32))


def assert_counts_are_those_of_the_formula(variant: Variant) -> None:
    made = sum(leaf.size for leaf in jax.tree.leaves(variant.params))
    assert num_params(variant.model.config, padded=True) == made


def assert_cached_chunks_equal_the_whole(variant: Variant) -> None:
    """Compares unrolled blocks with a cache with scanned blocks without one."""
    model = variant.model.clone(scanned=False)
    config = model.config
    cache = init_cache(config, "float32", len(variant.tokens))
    run = jax.jit(lambda params, tokens, cache: model.apply({"params": params}, tokens, cache))
    params = unstack(variant.params, config.num_layers)
    chunks = []
    for start in range(0, config.context_length, _CHUNK):
        hidden, cache = run(params, variant.tokens[:, start : start + _CHUNK], cache)
        chunks.append(hidden)
    _assert_close(np.concatenate(chunks, 1)[1], variant.hidden()[1])


def assert_devices_give_the_same(variant: Variant) -> None:
    _assert_close(variant.hidden((2, 2, 2)), variant.hidden())


def assert_packed_documents_are_as_alone(variant: Variant) -> None:
    hidden = variant.hidden()
    start = 0
    for row, length in enumerate(DOCUMENTS, start=2):
        packed = hidden[0, start : start + length]
        _assert_close(packed, hidden[row, :length])
        if start:  # otherwise this would show nothing
            assert np.abs(packed - hidden[1, start : start + length]).max() > 0.05
        start += length


@functools.cache
def _program(model: GPT2) -> Any:
    return jax.jit(lambda params, t, s: model.apply({"params": params}, t, None, s)[0])


_results: dict[Any, np.ndarray] = {}


def _hidden(model: GPT2, axes: tuple[int, int, int], variant: Variant) -> np.ndarray:
    if (model, axes) not in _results:
        mesh = make_mesh(MeshConfig(*axes), jax.devices()[: int(np.prod(axes))])
        config = model.config
        boxed = jax.eval_shape(lambda key: boxed_params(config, key), jax.random.key(0))
        placed = shardings(boxed, mesh, Rules(), unused=unused_axes(config))
        assert jax.tree.structure(placed) == jax.tree.structure(nn.unbox(boxed))
        params = jax.device_put(variant.params, placed)
        with sharding_context(mesh, Rules()):
            hidden = _program(model)(params, variant.tokens, variant.segments)
        _results[model, axes] = np.asarray(hidden)
    return _results[model, axes]


def _assert_close(one: Any, other: Any) -> None:
    assert np.abs(jnp.asarray(one) - other).max() < 2e-5
