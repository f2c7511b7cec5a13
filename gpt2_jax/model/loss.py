"""Computes the weighted next-token cross-entropy without storing [B, T, V] in float32.

Logits exist for one chunk of positions at a time. The forward pass already knows the gradient of
each chunk's logits (softmax minus one-hot, times the weight), so it also computes the products with
it, and the backward pass only scales them: the logits are computed once, not twice.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.model.defaults import loss_positions
from gpt2_jax.model.layout import (
    constrain,
    devices_of_batch,
    gather,
    on_each_device,
    sum_over_batch,
)
from gpt2_jax.model.loss_columns import columns_sweep
from gpt2_jax.model.softcap import capped_with_slope
from gpt2_jax.parallel.mesh import BATCH_AXES
from gpt2_jax.parallel.platforms import platform_of

_TABLE_AXES = ("vocab", "embed")


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def weighted_cross_entropy(
    hidden_BxTxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    vocab_size: int,
    chunk: int | None,
    precision: str | None = None,
    softcap: float = 0.0,
) -> jax.Array:
    """Returns the sum over positions of weight * -log softmax(hidden table^T)[target], in nats.

    Args:
      hidden_BxTxD: hidden states in the compute dtype.
      table_VxD: the embedding table, V >= vocab_size; it is cast to the compute dtype.
      targets_BxT: int32 ids below vocab_size.
      weights_BxT: float32; 0 ignores a position. The loss is not differentiated by them.
      vocab_size: rows of the table past it are padding and get no probability.
      chunk: positions whose logits exist at a time, a divisor of T; 0 means all, and None what
        `loss_positions` chooses.
      precision: precision of the products; see `ComputeConfig.matmul_precision`.
      softcap: see `model.logit_softcap`; 0 for none.

    Returns:
      A float32 scalar; divide it by the sum of weights for the mean.
    """
    arrays = (hidden_BxTxD, table_VxD, targets_BxT, weights_BxT)
    return _sweep(*arrays, vocab_size, chunk, precision, softcap)[0]


def plain_cross_entropy(
    hidden_BxTxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    vocab_size: int,
    chunk: int | None,
    precision: str | None = None,
    softcap: float = 0.0,
) -> jax.Array:
    """Returns the same as `weighted_cross_entropy`, and autodiff computes its gradients.

    The backward pass computes the logits of each chunk again.
    """
    B, T = targets_BxT.shape
    table = gather(table_VxD, _TABLE_AXES, hidden_BxTxD.dtype)
    chunk = loss_positions(chunk, B // devices_of_batch(), T) or T

    def add_chunk(total: jax.Array, arrays: Any) -> tuple[jax.Array, None]:
        hidden, targets, weights = arrays
        loss, _ = _local_sweep(
            hidden, table, targets, weights, vocab_size, 0, precision, softcap, False
        )
        return total + loss, None

    def split(x: jax.Array) -> jax.Array:
        """Reshapes [B, T, ...] to [T / chunk, B, chunk, ...]."""
        return jnp.moveaxis(x.reshape(B, T // chunk, chunk, *x.shape[2:]), 1, 0)

    chunks = (split(hidden_BxTxD), split(targets_BxT), split(weights_BxT))
    return jax.lax.scan(jax.checkpoint(add_chunk), jnp.float32(0), chunks)[0]


def nats_by_position(
    hidden_BxTxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    vocab_size: int,
    chunk: int | None,
    precision: str | None = None,
    softcap: float = 0.0,
) -> jax.Array:
    """Returns the sums over the batch of weight * -log softmax(hidden table^T)[target], in nats.

    The arguments are those of `weighted_cross_entropy`, whose value is the sum of these sums over
    the positions. It is for validation: gradients would keep all logits.

    Returns:
      float32 [T].
    """

    def program(hidden_BxTxD, table, targets_BxT, weights_BxT):
        B, T = targets_BxT.shape
        padded_V = jnp.arange(table.shape[0]) >= vocab_size

        def of_chunk(hidden_BxCxD, targets_BxC, weights_BxC):
            nats_BxC, *_ = _cross_entropies(
                hidden_BxCxD, table, targets_BxC, padded_V, jnp.float32, precision, softcap
            )
            return jnp.sum(nats_BxC * weights_BxC, axis=0)

        size = loss_positions(chunk, B, T) or T

        def of_place(i):
            slice_chunk = functools.partial(
                jax.lax.dynamic_slice_in_dim, start_index=i * size, slice_size=size, axis=1
            )
            return of_chunk(*map(slice_chunk, (hidden_BxTxD, targets_BxT, weights_BxT)))

        nats_T = jax.lax.map(of_place, jnp.arange(T // size)).reshape(T)
        return (sum_over_batch(nats_T),)

    batch = ("batch",)
    run = on_each_device(program, [batch, (), batch, batch], [()], BATCH_AXES)
    table = gather(table_VxD, _TABLE_AXES, hidden_BxTxD.dtype)
    return run(hidden_BxTxD, table, targets_BxT, weights_BxT)[0]


def _forward(
    hidden_BxTxD, table_VxD, targets_BxT, weights_BxT, vocab_size, chunk, precision, softcap
):
    arrays = (hidden_BxTxD, table_VxD, targets_BxT, weights_BxT)
    return _sweep(*arrays, vocab_size, chunk, precision, softcap, gradients=True)


def _backward(vocab_size, chunk, precision, softcap, gradients, cotangent):
    d_hidden_BxTxD, d_table_VxD = gradients
    return (
        (d_hidden_BxTxD * cotangent).astype(d_hidden_BxTxD.dtype),
        (d_table_VxD * cotangent).astype(d_table_VxD.dtype),
        None,
        None,
    )


weighted_cross_entropy.defvjp(_forward, _backward)


def _sweep(
    hidden_BxTxD,
    table_VxD,
    targets_BxT,
    weights_BxT,
    vocab_size,
    chunk,
    precision,
    softcap,
    gradients=False,
):
    """Returns (loss, (d_hidden, d_table), or None without gradients).

    Each device sums the table's gradient over the chunks of its own rows before the devices reduce
    it; XLA alone would reduce [V, D] in every chunk.
    """
    batch = ("batch",)
    in_columns = gradients and platform_of() == "cpu"

    def program(hidden, table, targets, weights):
        gradient: Any
        arrays = hidden, table, targets, weights
        if in_columns:
            length = targets.shape[1]
            num_chunks = length // (loss_positions(chunk, *targets.shape) or length)
            loss, gradient = columns_sweep(*arrays, vocab_size, num_chunks, precision, softcap)
        else:
            loss, gradient = _local_sweep(*arrays, vocab_size, chunk, precision, softcap, gradients)
        if not gradients:
            return (sum_over_batch(loss),)
        d_hidden, d_table = gradient
        return sum_over_batch(loss), d_hidden, d_table[None]

    results = [(), batch, batch] if gradients else [()]
    run = on_each_device(program, [batch, (), batch, batch], results, BATCH_AXES)
    table = gather(table_VxD, _TABLE_AXES, hidden_BxTxD.dtype)
    loss, *gradient = run(hidden_BxTxD, table, targets_BxT, weights_BxT)
    if not gradients:
        return loss, None
    d_hidden, d_tables = gradient
    return loss, (d_hidden, constrain(d_tables.sum(0), _TABLE_AXES))


def _cross_entropies(hidden_BxCxD, table, targets_BxC, padded_V, logits_dtype, precision, softcap):
    """Returns (nats [B, C] in float32, logits [B, C, V], slopes of their cap, lse [B, C])."""
    logits_BxCxV = jnp.einsum(
        "bcd,vd->bcv",
        hidden_BxCxD,
        table,
        precision=precision,
        preferred_element_type=logits_dtype,
    )
    logits_BxCxV, slope_BxCxV = capped_with_slope(logits_BxCxV, softcap)
    logits_BxCxV = jnp.where(padded_V, jnp.finfo(logits_dtype).min, logits_BxCxV)
    lse_BxC = jax.nn.logsumexp(logits_BxCxV.astype(jnp.float32), axis=-1)
    picked_BxC = jnp.take_along_axis(logits_BxCxV, targets_BxC[..., None], axis=-1)[..., 0]
    return lse_BxC - picked_BxC.astype(jnp.float32), logits_BxCxV, slope_BxCxV, lse_BxC


def _local_sweep(
    hidden_BxTxD, table, targets_BxT, weights_BxT, vocab_size, chunk, precision, softcap, gradients
):
    """Returns the same for the rows of one device, chunk by chunk along T."""
    dtype = hidden_BxTxD.dtype
    product = functools.partial(jnp.einsum, precision=precision)
    padded_V = jnp.arange(table.shape[0]) >= vocab_size

    def of_chunk(hidden_BxCxD, targets_BxC, weights_BxC):
        # A training step keeps its logits in the compute dtype, which halves what it writes; sums
        # over them are float32. Validation does not round its logits.
        logits_dtype = dtype if gradients else jnp.float32
        nats_BxC, logits_BxCxV, slope_BxCxV, lse_BxC = _cross_entropies(
            hidden_BxCxD, table, targets_BxC, padded_V, logits_dtype, precision, softcap
        )
        loss = jnp.sum(nats_BxC * weights_BxC)
        if not gradients:
            return loss, None, None
        probs_BxCxV = jnp.exp(logits_BxCxV.astype(jnp.float32) - lse_BxC[..., None])
        onehot_BxCxV = targets_BxC[..., None] == jnp.arange(table.shape[0])
        d_logits_BxCxV = (probs_BxCxV - onehot_BxCxV) * weights_BxC[..., None]
        if softcap:
            d_logits_BxCxV *= slope_BxCxV
        d_logits_BxCxV = d_logits_BxCxV.astype(dtype)
        d_hidden_BxCxD = product("bcv,vd->bcd", d_logits_BxCxV, table)
        d_table_VxD = product(
            "bcv,bcd->vd", d_logits_BxCxV, hidden_BxCxD, preferred_element_type=jnp.float32
        )
        return loss, d_hidden_BxCxD, d_table_VxD

    B, T, D = hidden_BxTxD.shape
    chunk = loss_positions(chunk, B, T)
    if chunk == 0:
        loss, d_hidden, d_table = of_chunk(hidden_BxTxD, targets_BxT, weights_BxT)
        return loss, ((d_hidden, d_table) if gradients else None)

    def body(carry, i):
        slice_chunk = functools.partial(
            jax.lax.dynamic_slice_in_dim, start_index=i * chunk, slice_size=chunk, axis=1
        )
        loss, d_hidden, d_table = of_chunk(
            slice_chunk(hidden_BxTxD), slice_chunk(targets_BxT), slice_chunk(weights_BxT)
        )
        total, d_total = carry
        return (total + loss, d_total if d_table is None else d_total + d_table), d_hidden

    d_zero = jnp.zeros(table.shape, jnp.float32) if gradients else None
    (loss, d_table), d_hidden = jax.lax.scan(body, (jnp.float32(0), d_zero), jnp.arange(T // chunk))
    if d_hidden is not None:
        d_hidden = jnp.moveaxis(d_hidden, 0, 1).reshape(B, T, D)
    return loss, ((d_hidden, d_table) if gradients else None)
