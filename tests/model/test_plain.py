"""With `compute.plain` the model is the same, and JAX differentiates it in every way it can."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.loss import plain_cross_entropy, weighted_cross_entropy
from gpt2_jax.model.params import output_table

# Every position encoding, every norm, tied and untied embeddings, and what else has parameters or a
# gradient of its own.
VARIANTS = [
    {"position": "learned", "norm": "layer", "tie_embeddings": True},
    {"position": "rotary", "norm": "rms", "tie_embeddings": False},
    {"position": "none", "norm": "layer", "tie_embeddings": True},
    {"position": "relative", "norm": "rms"},
    {"position": "alibi", "norm_position": "post", "activation": "swiglu", "logit_softcap": 5.0},
    {"qk_norm": "rms", "bias": False, "x0_residual": True, "value_residual": True},
]


def _loss(model: GPT2, params, ids):
    hidden, _ = model.apply({"params": params}, ids)
    cross_entropy = plain_cross_entropy if model.compute.plain else weighted_cross_entropy
    weights = jnp.linspace(0, 1, ids.size, dtype=jnp.float32).reshape(ids.shape)
    arrays = (hidden, output_table(params), jnp.roll(ids, -1, axis=1), weights)
    vocab_size, cap = model.config.vocab_size, model.config.logit_softcap
    return cross_entropy(*arrays, vocab_size, model.compute.loss_chunk, "highest", cap)


@functools.partial(jax.jit, static_argnums=0)
def _logits_loss_and_gradient(model: GPT2, params, ids):
    logits, _ = model.apply({"params": params}, ids, method=GPT2.logits)
    return logits, *jax.value_and_grad(functools.partial(_loss, model))(params, ids)


@pytest.mark.parametrize(
    "changes",
    [
        VARIANTS[0],
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in VARIANTS[1:]),
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_plain_logits_loss_and_gradients_are_those_of_the_model(
    tiny, noisy_params, tokens, changes
):
    models = [tiny(plain=plain, loss_chunk=8, num_layers=1, **changes) for plain in (False, True)]
    params, ids = noisy_params(models[0]), tokens(models[0])
    ours, plain = (
        jax.tree.leaves(_logits_loss_and_gradient(model, params, ids)) for model in models
    )
    for one, other in zip(ours, plain, strict=True):
        assert np.abs(one - other).max() <= 2e-6 * np.abs(one).max()


@pytest.fixture(scope="module")
def plain(tiny, noisy_params, tokens):
    """Returns (the loss as a function of the parameters, parameters, a direction)."""
    model = tiny(plain=True, loss_chunk=8, remat="dots", train=True)
    ids = tokens(model)
    return functools.partial(_loss, model, ids=ids), noisy_params(model), noisy_params(model, 1)


def _dot(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(float(np.vdot(np.float64(a), np.float64(b))) for a, b in pairs)


def test_plain_has_no_gradient_of_its_own(plain):
    loss, params, _ = plain
    assert "custom_vjp" not in str(jax.make_jaxpr(loss)(params))


def test_forward_mode_agrees_with_the_gradient(plain):
    loss, params, direction = plain
    _, slope = jax.jit(lambda p, d: jax.jvp(loss, (p,), (d,)))(params, direction)
    assert float(slope) == pytest.approx(_dot(jax.jit(jax.grad(loss))(params), direction), rel=1e-5)


@pytest.mark.slow
def test_a_hessian_vector_product_agrees_with_finite_differences(plain):
    loss, params, direction = plain
    gradient = jax.jit(jax.grad(loss))
    _, product = jax.jit(lambda p, d: jax.jvp(jax.grad(loss), (p,), (d,)))(params, direction)
    size = 1e-3
    ahead, behind = (
        gradient(jax.tree.map(lambda p, d, s=sign: p + s * size * d, params, direction))
        for sign in (1, -1)
    )
    for exact, a, b in zip(*map(jax.tree.leaves, (product, ahead, behind)), strict=True):
        assert np.abs(exact - (a - b) / (2 * size)).max() < 5e-3 * np.abs(exact).max() + 1e-2


@pytest.mark.slow
def test_the_python_of_the_docs_runs(monkeypatch):
    root = Path(__file__).parents[2]
    text = (root / "docs" / "compute.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(root)
    names: dict = {}
    exec(code, names)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(names["product"]))
