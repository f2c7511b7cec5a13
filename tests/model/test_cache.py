from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.cache import bytes_per_slot, init_cache
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.params import unstack

_LENGTHS = np.array([1, 3, 6])


def empty_cache(model, rows, room=None, **options):
    return init_cache(model.config, model.compute.dtype, rows, room, **options)


@functools.cache
def programs(model):
    """(params, tokens, cache) -> (logits, cache), and the same for whole sequences without one."""
    decoder = model.clone(scanned=False)

    def run(params, tokens, cache):
        blocks = unstack(params, model.config.num_layers)
        return decoder.apply({"params": blocks}, tokens, cache, method=GPT2.logits)

    def whole(params, tokens):
        return model.apply({"params": params}, tokens, method=GPT2.logits)[0]

    return jax.jit(run), jax.jit(whole)


@pytest.fixture(scope="module")
def setting(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    run, whole = programs(model)
    return model, np.asarray(ids), np.asarray(whole(params, ids)), functools.partial(run, params)


def prefill(setting):
    """Right-padded ragged prompts in the cache; the worst error of the logits at their tokens."""
    model, ids, full, run = setting
    padded = np.where(np.arange(6) < _LENGTHS[:, None], ids[:, :6], model.config.vocab_size - 1)
    logits, cache = run(jnp.asarray(padded), empty_cache(model, 3))
    error = max(np.abs(logits[b, :n] - full[b, :n]).max() for b, n in enumerate(_LENGTHS))
    return cache._replace(lengths=jnp.asarray(_LENGTHS, jnp.int32)), error


def cached_error(setting, chunk):
    model, ids, full, run = setting
    cache, worst = prefill(setting)
    T = model.config.context_length
    reached = np.zeros((3, T), bool)
    for _ in range((T - min(_LENGTHS)) // chunk):
        starts = np.asarray(cache.lengths)
        columns = starts[:, None] + np.arange(chunk)
        inside = (columns < T).all(1)  # a full row has nothing more to say
        columns = np.minimum(columns, T - 1)
        logits, cache = run(jnp.asarray(np.take_along_axis(ids, columns, 1)), cache)
        for b in np.flatnonzero(inside):
            worst = max(worst, np.abs(logits[b] - full[b, columns[b]]).max())
            reached[b, columns[b]] = True
    return worst / np.abs(full).max(), reached


def test_cached_logits_equal_uncached_token_by_token_up_to_the_last_slot(setting):
    error, reached = cached_error(setting, 1)
    print(f"cached against uncached, token by token: {error:.1e} relative")
    assert error < 1e-5
    assert (reached.sum(1) == 16 - _LENGTHS).all() and reached[:, -1].all()


def test_cached_logits_equal_uncached_in_chunks_up_to_the_last_slot(setting):
    error, reached = cached_error(setting, 5)
    print(f"cached against uncached, in chunks: {error:.1e} relative")
    assert error < 1e-5
    assert (reached.sum(1) == [15, 10, 10]).all() and reached[[0, 2], -1].all()


def test_an_empty_cache_takes_the_whole_context_at_once(setting):
    model, ids, full, run = setting
    logits, cache = run(jnp.asarray(ids), empty_cache(model, 3))
    assert np.abs(logits - full).max() / np.abs(full).max() < 1e-5
    assert np.asarray(cache.lengths).tolist() == [16, 16, 16]


@pytest.mark.parametrize("scale", [False, True])
def test_stacked_caches_of_scanned_blocks_give_the_same(tiny, noisy_params, tokens, scale):
    model = tiny(scale_attn_by_inverse_layer_idx=scale)
    params, ids = noisy_params(model), tokens(model)
    apart, _ = programs(model)
    together = jax.jit(lambda p, t, c: model.apply({"params": p}, t, c, method=GPT2.logits))
    one, other = empty_cache(model, 3), empty_cache(model, 3, stacked=True)
    for start, end in ((0, 5), (5, 10), (10, 15), (15, 16))[: 3 if scale else 4]:
        expected, one = apart(params, ids[:, start:end], one)
        logits, other = together(params, ids[:, start:end], other)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(other.lengths, one.lengths)
    for i, pair in enumerate(one.layers):
        np.testing.assert_allclose(other.layers[0][i], pair[0], rtol=1e-5, atol=1e-5)


def test_what_padding_left_behind_is_never_seen(setting):
    _, ids, full, run = setting
    cache, _ = prefill(setting)
    loud = jax.tree.map(
        lambda slots: jnp.where(
            jnp.arange(16)[:, None] < _LENGTHS[:, None, None, None], slots, 1e4
        ),
        cache.layers,
    )
    logits, _ = run(
        jnp.asarray(np.take_along_axis(ids, _LENGTHS[:, None], 1)), cache._replace(layers=loud)
    )
    expected = full[np.arange(3), _LENGTHS]
    assert np.abs(logits[:, 0] - expected).max() / np.abs(full).max() < 1e-5


def test_every_buffer_of_a_cache_is_its_own_and_in_the_compute_dtype(tiny):
    cache = empty_cache(tiny(dtype="bfloat16"), 2, 8)
    buffers = jax.tree.leaves(cache.layers)
    assert len({buffer.unsafe_buffer_pointer() for buffer in buffers}) == 4
    assert {(buffer.shape, buffer.dtype.name) for buffer in buffers} == {((2, 4, 8, 8), "bfloat16")}
    assert cache.lengths.tolist() == [0, 0]


@pytest.mark.parametrize("room", [0, -1, 17])
def test_a_cache_has_no_more_slots_than_the_context(tiny, room):
    with pytest.raises(ValueError, match=r"1\.\.16"):
        empty_cache(tiny(), 1, room)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_slot_takes_the_bytes_that_the_cache_has(dtype):
    config = ModelConfig(num_layers=3, num_heads=2, d_model=8, context_length=5)
    cache = init_cache(config, dtype, 2)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(cache.layers))
    assert held == 2 * 5 * bytes_per_slot(config, dtype)
