from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.model import attention, attention_kernels
from gpt2_jax.model.taps import VALUES


def assert_causal_probabilities(maps):
    T = maps.shape[-1]
    assert maps.dtype == np.float32
    assert np.abs(maps.sum(-1) - 1).max() < 1e-6
    assert (maps[..., *np.triu_indices(T, 1)] == 0).all()
    assert (maps[..., *np.tril_indices(T)] > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_rows_sum_to_one_and_see_nothing_later(tiny, noisy_params, tokens, dtype):
    model = tiny(dtype=dtype, attention="reference")
    params, ids = noisy_params(model), tokens(model)
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, mutable=[VALUES]))
    _, sown = run(params, ids)
    maps_LxBxHxTxT = sown[VALUES]["h"]["attn"]["pattern"]
    assert maps_LxBxHxTxT.shape == (2, 3, 4, 16, 16)
    assert_causal_probabilities(np.asarray(maps_LxBxHxTxT))


def attend(q, k, v, positions, shown):
    def tap(name, value):
        shown[name] = value
        return value

    return attention.reference_attention(q, k, v, positions, None, 8**-0.5, lambda p: p, tap=tap)


def test_large_scores_stay_finite_and_masked():
    q = jnp.full((1, 4, 1, 8), 1e3)
    positions = jnp.arange(4)[None]
    shown = {}
    y = attend(q, -q, q, positions, shown)
    assert np.isfinite(y).all()
    assert np.allclose(shown["pattern"][0, 0], np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None])


def test_a_query_sees_the_slots_up_to_its_position():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, n, 1, 8)), jnp.float32) for n in (1, 6, 6))
    positions = jnp.asarray([[2], [5]])
    shown = {}
    attend(q, k, v, positions, shown)
    assert (np.asarray(shown["pattern"][:, 0, 0] > 0).sum(-1) == [3, 6]).all()


def choose(model):
    return attention_kernels.choose(model.config, model.compute)


def test_auto_is_the_kernel_for_cpus_where_there_is_no_gpu(tiny, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert choose(tiny(attention="auto")) == "cpu"
    assert choose(tiny(attention="auto", dropout=0.1, train=True)) == "reference"
    assert choose(tiny(attention="reference")) == "reference"


def test_a_kernel_where_it_cannot_run_is_one_line_that_says_what_runs_there(tiny, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    for kernel, needs in (
        ("cudnn", "a GPU of compute capability 8.0 or more"),
        ("splash", "a TPU"),
    ):
        start = f"compute.attention={kernel} needs {needs}; use auto, which takes "
        with pytest.raises(UserError) as caught:
            choose(tiny(attention=kernel))
        assert str(caught.value) == f"{start}cpu here, or reference"
        with pytest.raises(UserError) as caught:
            choose(tiny(attention=kernel, dropout=0.1, train=True))
        assert str(caught.value) == f"{start}reference here"


def test_cudnn_is_chosen_and_refused_by_what_it_can_compute(tiny, monkeypatch):
    gpus = [types.SimpleNamespace(compute_capability="9.0")]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    assert choose(tiny(dtype="bfloat16")) == "cudnn"
    for changes, reason in (
        ({"dtype": "float32"}, "bfloat16"),
        ({"dtype": "bfloat16", "dropout": 0.1, "train": True}, "dropout"),
        ({"dtype": "bfloat16", "d_model": 16}, "head width"),
    ):
        assert choose(tiny(**changes)) == "reference"
        with pytest.raises(UserError, match=reason):
            choose(tiny(attention="cudnn", **changes))
    gpus.append(types.SimpleNamespace(compute_capability="7.0"))
    assert choose(tiny(dtype="bfloat16")) == "reference"


@pytest.mark.parametrize(
    ("platform", "changes", "line"),
    [
        ("cpu", {}, "cpu (compute.attention=auto)"),
        (
            "cpu",
            {"dropout": 0.1, "train": True},
            "reference (splash needs a TPU; cudnn needs a GPU of compute capability 8.0 or more; "
            "cpu needs model.dropout=0)",
        ),
        (
            "gpu",
            {"dtype": "bfloat16", "dropout": 0.1, "train": True},
            "reference (splash needs a TPU; cudnn needs model.dropout=0)",
        ),
        (
            "gpu",
            {"dtype": "float32", "dropout": 0.1, "train": True},
            "reference (splash needs a TPU; cudnn needs compute.dtype=bfloat16 and "
            "model.dropout=0)",
        ),
        ("gpu", {"dtype": "bfloat16"}, "cudnn (compute.attention=auto)"),
        (
            "tpu",
            {"context_length": 100},
            "reference (splash needs a context_length that is a multiple of 128; cudnn needs a GPU "
            "of compute capability 8.0 or more)",
        ),
        (
            "tpu",
            {"context_length": 128, "plain": True},
            "reference (splash needs compute.plain=false; cudnn needs a GPU of compute capability "
            "8.0 or more)",
        ),
        (
            "tpu",
            {"context_length": 128, "attention": "splash"},
            "splash (compute.attention=splash)",
        ),
        ("tpu", {"attention": "reference"}, "reference (compute.attention=reference)"),
    ],
)
def test_the_choice_says_what_the_other_kernels_lack(tiny, monkeypatch, platform, changes, line):
    gpus = [types.SimpleNamespace(compute_capability="9.0")]
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    model = tiny(**changes)
    assert attention_kernels.explain(model.config, model.compute) == line


@pytest.mark.parametrize(
    ("capability", "changes", "kernel"),
    [
        (None, {}, "splash"),
        (9.0, {}, "cudnn"),
        (7.0, {}, "reference"),
        (None, {"dropout": 0.1, "train": True}, "reference"),
        (9.0, {"dropout": 0.1, "train": True}, "reference"),
        (None, {"dtype": "float32"}, "splash"),
        (9.0, {"dtype": "float32"}, "reference"),
        (None, {"context_length": 100}, "reference"),
        (9.0, {"context_length": 100}, "cudnn"),
        (9.0, {"attention": "reference"}, "reference"),
        (9.0, {"attention": "splash"}, "reference"),
    ],
)
def test_the_choice_for_devices_that_are_not_there(tiny, capability, changes, kernel):
    model = tiny(**({"dtype": "bfloat16", "context_length": 128} | changes))
    assert attention_kernels.choose_on(model.config, model.compute, capability) == kernel
