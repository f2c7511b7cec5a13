"""Splash attention, computed as plain operations, gives what the reference gives."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model import attention, splash
from gpt2_jax.model.build import abstract_params
from gpt2_jax.model.splash import splash_attention


def _inputs(T, H, K, dtype=jnp.float32, B=2):
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(B, T, H, K)), dtype) for _ in range(4)]
    borders = np.zeros((B, T), np.int32)
    borders[0, [T // 6, T // 2 + 7]] = borders[-1, T // 2] = 1
    return arrays, jnp.asarray(borders.cumsum(1), jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradients(kernel, scale, arrays, segments):
    q, k, v, dy = arrays

    def attend(q, k, v):
        if kernel == "splash":
            return splash_attention(q, k, v, segments, scale, interpret=True)
        slots = jnp.arange(q.shape[1])[None]
        return attention.reference_attention(q, k, v, slots, segments, scale, lambda p: p)

    y, pull_back = jax.vjp(attend, q, k, v)
    return y, *pull_back(dy)


# Lengths of one block, of blocks of different sizes, and, above 1,024 keys, of several parts of
# the queries' gradient.
@pytest.mark.parametrize(
    ("T", "H", "K", "scale", "cut"),
    [
        (128, 2, 16, 0.25, False),
        pytest.param(256, 3, 8, 0.25, True, marks=pytest.mark.slow),
        pytest.param(1024, 1, 64, 0.125, False, marks=pytest.mark.slow),
        pytest.param(1024, 1, 64, 1.0, True, marks=pytest.mark.slow),
        pytest.param(2048, 1, 16, 0.25, False, marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_are_those_of_the_reference(T, H, K, scale, cut):
    check_against_reference(T, H, K, scale, cut)


# The same relations of length and blocks as at 1,024 and 2,048, with blocks of a quarter.
@pytest.mark.parametrize(
    ("T", "H", "K", "scale", "cut"),
    [pytest.param(256, 1, 64, 1.0, True, marks=pytest.mark.slow), (512, 1, 16, 0.25, False)],
)
def test_several_blocks_and_parts_give_what_the_reference_gives(monkeypatch, T, H, K, scale, cut):
    monkeypatch.setattr(splash, "_BLOCK", 128)
    monkeypatch.setattr(splash, "_BACKWARD_KEYS", 256)
    check_against_reference(T, H, K, scale, cut)


def check_against_reference(T, H, K, scale, cut):
    arrays, segments = _inputs(T, H, K, B=2 if cut or T < 1024 else 1)
    ids = segments if cut else None
    ours = _value_and_gradients("splash", scale, arrays, ids)
    theirs = _value_and_gradients("reference", scale, arrays, ids)
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() < 2e-5 * np.abs(other).max()


def test_in_bfloat16_it_is_as_close_to_float32_as_the_reference_is():
    arrays, segments = _inputs(256, 2, 64, jnp.bfloat16)
    exact = _value_and_gradients(
        "reference", 0.125, [x.astype(jnp.float32) for x in arrays], segments
    )
    ours = _value_and_gradients("splash", 0.125, arrays, segments)
    theirs = _value_and_gradients("reference", 0.125, arrays, segments)
    for one, other, right in zip(ours, theirs, exact, strict=True):
        assert one.dtype == jnp.bfloat16
        errors = [np.sqrt(np.square(np.float32(x) - right).mean()) for x in (one, other)]
        assert errors[0] < 1.1 * errors[1]


def test_the_backward_pass_keeps_no_padded_array():
    (q, k, v, _), segments = _inputs(128, 4, 16, jnp.bfloat16)
    _, pull_back = jax.vjp(
        lambda q, k, v: splash_attention(q, k, v, segments, 0.25, interpret=True), q, k, v
    )
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.dtype == jnp.bfloat16]
    # Queries, keys and values, and the output.
    assert sorted(leaf.shape for leaf in kept) == [(2, 128, 64), (2, 128, 192)]


@pytest.mark.parametrize(("policy", "runs"), [("dots", 1), ("full", 2)])
def test_remat_that_keeps_products_runs_the_forward_kernel_once(tiny, monkeypatch, policy, runs):
    model = tiny(context_length=128, attention="splash", remat=policy, train=True, num_layers=1)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # to trace, and not to run

    def loss(params):
        return model.apply({"params": params}, jnp.zeros((1, 128), jnp.int32))[0].sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(abstract_params(model.config)))
    assert len(re.findall(r"name=splash_mha_fwd\w*", text)) == runs
    assert len(re.findall(r"name=splash_mha_dkv\w*", text)) == 1
