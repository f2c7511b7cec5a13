"""Looks up embeddings, with a gradient that stays exact for frequent tokens."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig
from gpt2_jax.model.layout import Axes, constrain, gather, on_each_device
from gpt2_jax.parallel.mesh import BATCH_AXES


def embed(table_VxD: jax.Array, ids: jax.Array, axes: Axes, compute: ComputeConfig) -> jax.Array:
    """Returns embeddings [..., D] of int32 ids [B, ...] in the compute dtype.

    Args:
      table_VxD: the embedding table.
      ids: token ids or positions.
      axes: logical names of the table's axes.
      compute: gives the dtype, and whether autodiff is to see plain operations.
    """
    if compute.plain:
        return gather(table_VxD, axes, table_VxD.dtype)[ids].astype(compute.dtype)
    rows: Any = lookup(table_VxD, ids, axes, compute.dtype)
    return rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lookup(table_VxD: jax.Array, ids: jax.Array, axes: Axes, dtype: Any) -> jax.Array:
    """Returns embeddings [..., D] of int32 ids [B, ...] in the compute dtype.

    Each device gathers the whole table, or its part under tensor parallelism; XLA would otherwise
    look up all ids of the batch in every part. The gradient is summed in the table's own dtype,
    because in bfloat16 the sum of a token that occurs hundreds of times would stop growing.

    Args:
      table_VxD: the embedding table.
      ids: token ids or positions.
      axes: logical names of the table's axes.
      dtype: the compute dtype.
    """
    return gather(table_VxD, axes, dtype)[ids]


def _forward(table: jax.Array, ids: jax.Array, axes: Axes, dtype: Any) -> tuple[jax.Array, Any]:
    return lookup(table, ids, axes, dtype), (table, ids)


def _backward(axes: Axes, dtype: Any, residuals: Any, dx: jax.Array) -> tuple[jax.Array, None]:
    table, ids = residuals

    def program(ids, dx):
        return (jnp.zeros((1, *table.shape), table.dtype).at[0, ids].add(dx.astype(table.dtype)),)

    # Each device sums its own rows first; XLA would exchange the rows of all devices.
    batch = ("batch",) if len(ids) > 1 else ()  # positions may be one row for the whole batch
    d_tables = on_each_device(program, [batch, batch], [batch], BATCH_AXES)(ids, dx)[0]
    return constrain(d_tables.sum(0), axes), None


lookup.defvjp(_forward, _backward)
