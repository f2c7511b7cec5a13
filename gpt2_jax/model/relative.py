"""Computes relative positions: scores of queries with learned rows for the distances to keys."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.model.layout import gather

_AXES = ("distance", "heads", "head_dim")


def relative_scores(
    module: Any, q_BxTxHxK: jax.Array, slots_BxT: jax.Array, room: int
) -> jax.Array:
    """Returns the scaled products of each query with a learned row for its distance to each key.

    Row d of `relative` [M, H, K] is for the distance d, and row M - 1 for all from there on; M is
    the context length (Huang et al. 2018, "Music Transformer", section 3.4). Packed documents need
    nothing else, because a distance in slots is one in positions.
    """
    config, compute = module.config, module.compute
    init = nn.with_logical_partitioning(nn.initializers.normal(config.head_dim**-0.5), _AXES)
    shape = (config.context_length, config.num_heads, config.head_dim)
    table_MxHxK = gather(module.param("relative", init, shape, jnp.float32), _AXES, compute.dtype)
    q_BxTxHxK, precision = q_BxTxHxK * config.score_scale, compute.matmul_precision
    if q_BxTxHxK.shape[1] == room:  # a whole sequence; fewer queries may begin at any slot
        return skewed_scores(q_BxTxHxK, table_MxHxK, precision)
    return picked_scores(q_BxTxHxK, table_MxHxK, slots_BxT, room, precision)


def skewed_scores(
    q_BxTxHxK: jax.Array, table_MxHxK: jax.Array, precision: str | None = None
) -> jax.Array:
    """Returns what `picked_scores` does for a whole sequence, by a reshape instead of a gather.

    The products of a query are put in order from the largest distance to 0. With a column of zeros
    on their left, the same numbers in rows that are one shorter have each row shifted by one more
    than the row above (Huang et al. 2018, section 3.4.1). Keys behind the query, which it does not
    see, get the products of other pairs.

    Args:
      q_BxTxHxK: queries of the slots 0..T-1, scaled.
      table_MxHxK, precision: see `picked_scores`.

    Returns:
      float32 [B, H, T, T].
    """
    M, T = len(table_MxHxK), q_BxTxHxK.shape[1]
    rows_TxHxK = table_MxHxK[:T]
    if T > M:
        rows_TxHxK = jnp.pad(rows_TxHxK, ((0, T - M), (0, 0), (0, 0)), mode="edge")
    products_BxHxTxT = _products(q_BxTxHxK, rows_TxHxK[::-1], precision)
    padded_BxHxTxU = jnp.pad(products_BxHxTxT, ((0, 0), (0, 0), (0, 0), (1, 0)))
    return padded_BxHxTxU.reshape(*products_BxHxTxT.shape[:2], T + 1, T)[:, :, 1:]


def picked_scores(
    q_BxTxHxK: jax.Array,
    table_MxHxK: jax.Array,
    slots_BxT: jax.Array,
    room: int,
    precision: str | None = None,
) -> jax.Array:
    """Returns each query's product with the row of its distance to each slot, float32 [B, H, T, S].

    Args:
      q_BxTxHxK: queries, scaled.
      table_MxHxK: a row for each distance; the last also stands for all larger ones.
      slots_BxT: slot of each query; the leading axis is B or 1.
      room: S; slots behind the query, which it does not see, count as its own.
      precision: precision of the products; see `ComputeConfig.matmul_precision`.
    """
    rows_MxHxK = table_MxHxK[:room]  # no distance is larger
    products_BxHxTxM = _products(q_BxTxHxK, rows_MxHxK, precision)
    distances_BxTxS = slots_BxT[:, :, None] - jnp.arange(room)
    picked_Bx1xTxS = jnp.clip(distances_BxTxS, 0, len(rows_MxHxK) - 1)[:, None]
    return jnp.take_along_axis(products_BxHxTxM, picked_Bx1xTxS, axis=-1)


def _products(q_BxTxHxK: jax.Array, rows_MxHxK: jax.Array, precision: str | None) -> jax.Array:
    return jnp.einsum(
        "bthk,mhk->bhtm",
        q_BxTxHxK,
        rows_MxHxK,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
