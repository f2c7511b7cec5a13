"""Computes the loss of a training step with logits in columns, which suits CPUs.

A column [V] is the logits of one position. Softmax then goes down the columns, so that its inner
loops run over positions and need no reductions, and each product with the logits has a form that
CPUs multiply fast.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gpt2_jax.model.products import ROUNDED, dot, rounded, transposed
from gpt2_jax.model.softcap import capped_with_slope


def columns_sweep(
    hidden_BxTxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    vocab_size: int,
    num_chunks: int,
    precision: str | None,
    softcap: float = 0.0,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns (loss, (d_hidden [B, T, D], d_table [V, D])) of the rows of one device.

    Args:
      hidden_BxTxD: hidden states.
      table_VxD: the table in the dtype of the hidden states.
      targets_BxT, weights_BxT, vocab_size, precision, softcap: see
        `loss.weighted_cross_entropy`.
      num_chunks: a divisor of B T; the logits of B T / num_chunks positions exist at a time.
    """
    B, T, D = hidden_BxTxD.shape
    V, C = table_VxD.shape[0], B * T // num_chunks
    if hidden_BxTxD.dtype == jnp.bfloat16:
        # The factors are rounded already, so that no precision makes their products more exact; the
        # logits and the table's gradient stay float32.
        precision = ROUNDED
    table = rounded(table_VxD, precision)
    # CPUs multiply rounded factors fast only in this form; the table is transposed once for all.
    table_DxV = transposed(table) if precision == ROUNDED else None
    ids_Vx1 = jnp.arange(V)[:, None]

    def add_chunk(carry, chunk):
        loss, d_table_VxD = carry
        hidden_CxD, targets_C, weights_C = chunk
        hidden_CxD = rounded(hidden_CxD, precision)
        logits_VxC = dot(table, hidden_CxD, ((1,), (1,)), precision).astype(jnp.float32)
        logits_VxC, slope_VxC = capped_with_slope(logits_VxC, softcap)
        logits_VxC = jnp.where(ids_Vx1 < vocab_size, logits_VxC, jnp.finfo(jnp.float32).min)
        largest_C = logits_VxC.max(0)
        exps_VxC = jnp.exp(logits_VxC - largest_C)
        sums_C = exps_VxC.sum(0)
        picked_C = jnp.take_along_axis(logits_VxC, targets_C[None], axis=0)[0]
        loss += jnp.sum((largest_C + jnp.log(sums_C) - picked_C) * weights_C)
        d_logits_VxC = exps_VxC * (weights_C / sums_C) - jnp.where(
            ids_Vx1 == targets_C, weights_C, 0.0
        )
        if softcap:
            d_logits_VxC *= slope_VxC
        d_logits_VxC = d_logits_VxC.astype(hidden_CxD.dtype)
        d_table_VxD += dot(d_logits_VxC, hidden_CxD, ((1,), (0,)), precision).astype(jnp.float32)
        if table_DxV is None:
            d_hidden_CxD = dot(d_logits_VxC, table, ((0,), (0,)), precision)
        else:
            d_hidden_CxD = transposed(dot(table_DxV, d_logits_VxC, ((1,), (0,)), precision))
        return (loss, d_table_VxD), d_hidden_CxD.astype(hidden_BxTxD.dtype)

    arrays = hidden_BxTxD, targets_BxT, weights_BxT
    chunks = tuple(x.reshape(num_chunks, C, *x.shape[2:]) for x in arrays)
    zeros = jnp.float32(0), jnp.zeros((V, D), jnp.float32)
    (loss, d_table_VxD), d_hidden_GxCxD = jax.lax.scan(add_chunk, zeros, chunks)
    return loss, (d_hidden_GxCxD.reshape(B, T, D), d_table_VxD)
