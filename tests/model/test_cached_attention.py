"""Tests attention behind a cache: blocks of slots against the reference, and rows by themselves."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.attention import reference_attention
from gpt2_jax.model.cached_attention import BLOCK_SLOTS, cached_attention

_H, _K, _SCALE = 2, 8, 0.4
_run = jax.jit(functools.partial(cached_attention, scale=_SCALE), static_argnames="window")


def _arrays(seed: int, rows: int, queries: int, slots: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    shapes = (rows, queries, _H, _K), (rows, _H, slots, _K), (rows, _H, slots, _K)
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def _expected(q: Any, k: Any, v: Any, slots: Any, window: int, bias: Any) -> np.ndarray:
    k, v = (jnp.swapaxes(x, 1, 2) for x in (k, v))
    dropout: Any = lambda probs: probs  # noqa: E731
    mixed = reference_attention(q, k, v, slots, None, _SCALE, dropout, None, window, bias)
    return np.asarray(mixed)


@pytest.mark.parametrize(("size", "queries"), [(40, 1), (3 * BLOCK_SLOTS, 1), (3 * BLOCK_SLOTS, 5)])
@pytest.mark.parametrize("window", [0, 7, 150])
def test_blocks_give_what_the_reference_gives(size: int, queries: int, window: int) -> None:
    q, k, v = _arrays(size + queries, 4, queries, size)
    starts = np.array([0, size // 3, size // 2, size - queries])
    slots = jnp.asarray(starts[:, None] + np.arange(queries), jnp.int32)
    bias = None
    if window != 7:
        values = np.random.default_rng(0).normal(size=(4, _H, queries, size))
        bias = jnp.asarray(values, jnp.float32)
    found = _run(q, k, v, slots, window=window, bias_BxHxTxS=bias)
    wanted = _expected(q, k, v, slots, window, bias)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def test_bits_of_a_row_do_not_depend_on_the_others_or_on_what_lies_beyond_it() -> None:
    q, k, v = _arrays(1, 3, 1, 3 * BLOCK_SLOTS)
    for short in (0, 100, BLOCK_SLOTS - 1, BLOCK_SLOTS, 200):
        alone = _run(q, k, v, jnp.array([[short], [0], [0]], jnp.int32))
        beside = _run(
            q, k, v, jnp.array([[short], [3 * BLOCK_SLOTS - 1], [BLOCK_SLOTS]], jnp.int32)
        )
        np.testing.assert_array_equal(alone[0], beside[0])
        other_k, other_v = (x.at[0, :, short + 1 :].set(1e4) for x in (k, v))
        changed = _run(q, other_k, other_v, jnp.array([[short], [300], [0]], jnp.int32))
        np.testing.assert_array_equal(changed[0], alone[0])
