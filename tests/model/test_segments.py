"""Documents packed into one row are computed as if each stood alone, whatever the kernel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model import attention_kernels
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.splash import splash_attention
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context

_LENGTHS = (5, 1, 10)


def test_packed_documents_have_the_hidden_states_they_have_alone(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model, rows=2)
    segments = jnp.asarray(np.repeat(np.arange(3), _LENGTHS)[None].repeat(2, 0), jnp.int32)
    run = jax.jit(lambda t, s: model.apply({"params": params}, t, None, s)[0])
    # Each document alone begins a row of its own; what pads it comes later and is not seen.
    starts = np.cumsum((0, *_LENGTHS[:-1]))
    alone = [jnp.roll(ids, -start, axis=1) for start in starts]
    packed, (together, *alone) = (
        run(ids, segments),
        run(jnp.concatenate([ids, *alone]), None).reshape(4, 2, 16, -1),
    )
    for start, length, expected in zip(starts, _LENGTHS, alone, strict=True):
        document = slice(start, start + length)
        assert np.abs(packed[:, document] - expected[:, :length]).max() < 1e-5
        if start:
            assert np.abs(together[:, document] - expected[:, :length]).max() > 0.1


def test_nothing_flows_back_over_a_border(tiny, noisy_params, tokens):
    model = tiny(remat="full", train=True)
    params, ids = noisy_params(model), tokens(model, rows=1)
    segments = jnp.asarray(np.repeat(np.arange(3), _LENGTHS)[None], jnp.int32)

    def loss(wpe):
        hidden, _ = model.apply({"params": params | {"wpe": wpe}}, ids, None, segments)
        return hidden[0, 5].sum()  # the document of one token

    gradient = jax.jit(jax.grad(loss))(params["wpe"])
    assert np.abs(gradient[0]).max() > 0
    assert (np.asarray(gradient[1:]) == 0).all()


def test_a_cache_takes_no_segments(tiny, noisy_params, tokens):
    model = tiny()
    cache = init_cache(model.config, "float32", 1, 16, stacked=True)
    params, ids = noisy_params(model), tokens(model, rows=1)
    with pytest.raises(ValueError, match="no segments"):
        model.apply({"params": params}, ids, cache, jnp.zeros_like(ids))


def _inputs(T=256, H=2, K=16, B=2):
    rng = np.random.default_rng(0)
    q, k, v, dy = (jnp.asarray(rng.normal(size=(B, T, H, K)), jnp.float32) for _ in range(4))
    borders = np.zeros((B, T), np.int32)
    borders[0, [T // 6, T // 2 + 7]] = borders[1, T // 2] = 1
    return q, k, v, dy, jnp.asarray(borders.cumsum(1), jnp.int32)


def _value_and_gradients(f, q, k, v, dy):
    y, backward = jax.vjp(f, q, k, v)
    return y, *backward(dy)


@pytest.mark.slow
def test_every_device_runs_the_kernel_on_its_rows_and_heads(monkeypatch):
    q, k, v, dy, segments = _inputs(T=128, B=4)
    seen = []

    def kernel(q, k, v, segments, scale):
        seen.append((q.shape, segments.shape))
        return splash_attention(q, k, v, segments, scale, interpret=True)

    splash = attention_kernels._KERNELS["splash"]._replace(attend=kernel)
    monkeypatch.setitem(attention_kernels._KERNELS, "splash", splash)
    fused = functools.partial(attention_kernels.fused_attention, scale=0.25, kernel="splash")

    def run(q, k, v, dy):
        return _value_and_gradients(lambda q, k, v: fused(q, k, v, segments), q, k, v, dy)

    alone = jax.jit(run)(q, k, v, dy)
    assert seen[-1] == ((4, 128, 2, 16), (4, 128))
    with sharding_context(make_mesh(MeshConfig(2, 2, 2)), Rules()):
        divided = jax.jit(run)(q, k, v, dy)
    assert seen[-1] == ((1, 128, 1, 16), (1, 128))
    for ours, theirs in zip(divided, alone, strict=True):
        assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()


def choose(model):
    return attention_kernels.choose(model.config, model.compute)


def test_splash_is_chosen_for_tpus_and_refused_by_what_it_cannot_compute(tiny, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose(tiny(context_length=128)) == "splash"
    assert choose(tiny(context_length=100)) == "reference"
    assert choose(tiny(context_length=128, dropout=0.1, train=True)) == "reference"
    assert "multiple of 128" in _refusal(tiny(context_length=100, attention="splash"))
    high = {"context_length": 128, "dtype": "float32", "precision": "high"}
    assert choose(tiny(**high)) == "reference"
    assert "compute.precision" in _refusal(tiny(attention="splash", **high))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert choose(tiny(context_length=128)) == "cpu"
    assert "needs a TPU" in _refusal(tiny(context_length=128, attention="splash"))


def _refusal(model):
    with pytest.raises(UserError) as caught:
        choose(model)
    return str(caught.value)
