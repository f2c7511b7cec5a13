from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.model import loss
from gpt2_jax.model.loss import weighted_cross_entropy

B, T, D, V, PADDED = 2, 16, 8, 61, 64
_CHUNKS = [0, T // 2, T // 4]


@pytest.fixture(autouse=True, params=["cpu", "gpu"])
def platform(request, monkeypatch):
    """Computes the loss as on CPUs, with logits in columns, and as elsewhere."""
    monkeypatch.setattr(loss, "platform_of", lambda: request.param)
    return request.param


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(B, T, D)), dtype)
    table = jnp.asarray(rng.normal(size=(PADDED, D)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)
    weights = rng.uniform(0.1, 2, (B, T)) * rng.integers(0, 2, (B, T))
    assert 0 < (weights == 0).sum() < B * T
    return hidden, table, targets, jnp.asarray(weights, jnp.float32)


def reference(hidden, table, targets, weights):
    logits = hidden.astype(jnp.float32) @ table[:V].T
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(losses * weights)


def ours(chunk):
    return _ours(chunk, loss.platform_of())


@functools.cache
def _ours(chunk, platform):
    """A function for each platform, because programs are traced once for each function."""
    return lambda *args: weighted_cross_entropy(*args, V, chunk)


def value_and_grad(function, scale=1.0):
    return functools.partial(_scaled_value_and_grad, function, jnp.float32(scale))


@functools.partial(jax.jit, static_argnums=0)
def _scaled_value_and_grad(function, scale, *args):
    return jax.value_and_grad(lambda *args: scale * function(*args), argnums=(0, 1))(*args)


@pytest.mark.parametrize("chunk", _CHUNKS)
@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_value_and_gradients_are_those_of_optax(chunk, scale):
    args = inputs()
    value, (d_hidden, d_table) = value_and_grad(ours(chunk), scale)(*args)
    expected, (e_hidden, e_table) = value_and_grad(reference, scale)(*args)
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert jax.jit(ours(chunk))(*args) == pytest.approx(float(expected) / scale, rel=1e-6)
    np.testing.assert_allclose(d_hidden, e_hidden, rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(d_table, e_table, rtol=1e-4, atol=2e-6)
    ignored = np.asarray(args[3]) == 0
    assert (np.asarray(d_hidden)[ignored] == 0).all()
    assert (np.asarray(d_table)[V:] == 0).all()


@pytest.mark.parametrize("chunk", [*_CHUNKS, 2 * T, None])
def test_sums_at_each_position_are_those_of_optax(chunk):
    hidden, table, targets, weights = inputs()
    for cap in (0.0, 2.0):
        found = jax.jit(lambda *args, cap=cap: loss.nats_by_position(*args, V, chunk, None, cap))
        logits = hidden @ table[:V].T
        logits = cap * jnp.tanh(logits / cap) if cap else logits
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        expected_T = jnp.sum(losses * weights, axis=0)
        nats_T = found(hidden, table, targets, weights)
        assert nats_T.dtype == jnp.float32
        np.testing.assert_allclose(nats_T, expected_T, rtol=1e-5, atol=1e-6)


def test_a_chunk_longer_than_the_sequence_is_the_sequence():
    args = inputs()
    assert jax.jit(ours(2 * T))(*args) == jax.jit(ours(0))(*args)


def test_no_weight_at_all_is_a_loss_of_zero():
    hidden, table, targets, weights = inputs()
    value, grads = value_and_grad(ours(4))(hidden, table, targets, 0 * weights)
    assert value == 0 and not any(np.asarray(g).any() for g in grads)


def largest_array(chunk):
    """Elements of the largest array in the loss's program and in that of its gradients."""
    args = jax.eval_shape(inputs)
    program = str(jax.make_jaxpr(jax.value_and_grad(ours(chunk), argnums=(0, 1)))(*args))
    shapes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", program)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


def test_a_chunked_loss_never_holds_all_logits():
    assert largest_array(0) == B * T * PADDED
    assert largest_array(T // 4) == B * T // 4 * PADDED


@pytest.mark.parametrize("chunk", [0, T // 4])
def test_bfloat16_is_close_to_float32(chunk):
    hidden, table, targets, weights = inputs(jnp.bfloat16)
    expected, exact = value_and_grad(reference)(hidden, table, targets, weights)
    value, rounded = value_and_grad(ours(chunk))(hidden, table, targets, weights)
    assert value.dtype == jnp.float32 and rounded[0].dtype == jnp.bfloat16
    assert rounded[1].dtype == jnp.float32
    assert value == pytest.approx(float(expected), rel=0.01)
    for one, other in zip(rounded, exact, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        assert np.abs(one - other).max() / np.abs(other).max() < 0.03


def test_no_precision_rounds_the_tables_gradient_of_a_model_in_bfloat16():
    args = inputs(jnp.bfloat16)
    gradients = [
        value_and_grad(functools.partial(_in_one_chunk, precision))(*args)[1]
        for precision in (None, "high", "highest")
    ]
    for d_hidden, d_table in gradients:
        np.testing.assert_array_equal(d_hidden, gradients[0][0])
        np.testing.assert_array_equal(d_table, gradients[0][1])
        assert (d_table != d_table.astype(jnp.bfloat16)).any()


def _in_one_chunk(precision, *args):
    return weighted_cross_entropy(*args, V, 0, precision)


@pytest.mark.parametrize("rows", [V, PADDED])
@pytest.mark.parametrize("chunk", [0, T // 4])
def test_rounded_factors_of_any_size_are_close_to_float32(rows, chunk):
    hidden, table, targets, weights = inputs()
    args = hidden, table[:rows], targets, weights
    expected, exact = value_and_grad(reference)(*args)
    rounded = functools.partial(weighted_cross_entropy, vocab_size=V, chunk=chunk)
    rounded = functools.partial(rounded, precision="bfloat16")
    value, gradients = value_and_grad(lambda *args: rounded(*args))(*args)
    assert value == pytest.approx(float(expected), rel=0.01)
    for one, other in zip(gradients, exact, strict=True):
        assert one.dtype == jnp.float32
        error = np.abs(one - other).max() / np.abs(other).max()
        assert error < 0.03
        assert error > 1e-4 or loss.platform_of() != "cpu"  # where factors are rounded


def test_confident_logits_in_bfloat16_stay_finite():
    hidden, table, targets, weights = inputs(jnp.bfloat16)
    value, grads = value_and_grad(ours(4))(hidden * 1000, table, targets, weights)
    assert np.isfinite(value)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in grads)


@pytest.mark.parametrize("compute", [weighted_cross_entropy, loss.plain_cross_entropy])
@pytest.mark.parametrize("chunk", [0, T // 4])
def test_capped_logits_have_the_loss_and_gradients_of_autodiff(compute, chunk):
    cap = 2.0  # many logits are larger

    def expected(hidden, table, targets, weights):
        logits = cap * jnp.tanh(hidden @ table[:V].T / cap)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.sum(losses * weights)

    args = inputs()
    value, gradients = value_and_grad(lambda *args: compute(*args, V, chunk, None, cap))(*args)
    exact, exact_gradients = value_and_grad(expected)(*args)
    assert value == pytest.approx(float(exact), rel=3e-6)
    assert abs(float(value_and_grad(reference)(*args)[0]) - float(exact)) > 1
    for one, other in zip(gradients, exact_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)


def test_capped_logits_in_bfloat16_are_close_to_float32():
    exact = value_and_grad(lambda *args: weighted_cross_entropy(*args, V, 4, None, 2.0))(*inputs())
    hidden, *others = inputs(jnp.bfloat16)
    value, grads = value_and_grad(lambda *args: weighted_cross_entropy(*args, V, 4, None, 2.0))(
        hidden, *others
    )
    assert value == pytest.approx(float(exact[0]), rel=0.01)
    for one, other in zip(grads, exact[1], strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other)
        assert np.abs(one - other).max() / np.abs(other).max() < 0.03


@pytest.mark.parametrize(("chunk", "accepted"), [(0, True), (8, True), (5, False), (32, True)])
def test_the_config_refuses_a_chunk_that_does_not_divide_the_context(chunk, accepted):
    make = functools.partial(
        from_dict, {"model": {"context_length": T}, "compute": {"loss_chunk": chunk}}
    )
    if accepted:
        assert make().compute.loss_chunk == chunk
    else:
        with pytest.raises(UserError, match=r"compute\.loss_chunk=5 must divide"):
            make()
