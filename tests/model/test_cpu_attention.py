"""The kernel for CPUs computes what the reference computes, and so do its gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.attention import reference_attention
from gpt2_jax.model.cpu_attention import cpu_attention

B, T, H, K = 2, 12, 3, 8


@functools.partial(jax.jit, static_argnames="attend")
def results(attend, q, k, v, segments, cotangent):
    y, pull_back = jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)
    return y, *pull_back(cotangent)


@functools.cache
def plain(window):
    def attend(q, k, v, segments):
        slots = jnp.arange(T)[None]
        arrays = q, k, v, slots, segments
        return reference_attention(*arrays, K**-0.5, lambda p: p, window=window)

    return attend


@functools.cache
def kernel(window):
    return lambda q, k, v, segments: cpu_attention(q, k, v, segments, K**-0.5, window)


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 0.03)])
def test_values_and_gradients_are_those_of_the_reference(dtype, tolerance, documents, window):
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(B, T, H, K)), dtype) for _ in range(4)]
    segments = jnp.sort(jnp.asarray(rng.integers(0, 3, (B, T)))) if documents else None
    *inputs, cotangent = arrays
    exact = [x.astype(jnp.float32) for x in arrays]
    expected = results(plain(window), *exact[:3], segments, exact[3])
    found = results(kernel(window), *inputs, segments, cotangent)
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(mine.astype(jnp.float32) / scale, other / scale, atol=tolerance)


def test_large_scores_stay_finite():
    q = jnp.full((1, 4, 1, 8), 1e3)
    y, *gradients = results(lambda q, k, v, s: cpu_attention(q, k, v, s, 1.0), q, -q, q, None, q)
    assert all(np.isfinite(x).all() for x in (y, *gradients))
