"""The lookup of rows of an embedding table, with a gradient that loses no frequent token."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.model.layout import Axes, constrain, gather, on_each_device
from gpt2_jax.parallel.mesh import BATCH_AXES


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lookup(table_VxD: jax.Array, ids: jax.Array, axes: Axes, dtype: Any) -> jax.Array:
    """Rows of the table in the compute dtype: [..., D] of int32 ids [B, ...].

    The table is gathered whole, cut by tensor parallelism at most: XLA would otherwise look up all
    rows of the batch in every part. Its gradient sums in the table's own dtype. A token that occurs
    hundreds of times in a batch would stop adding up in bfloat16.

    Args:
      axes: logical names of the table's axes.
    """
    return gather(table_VxD, axes, dtype)[ids]


def _forward(table: jax.Array, ids: jax.Array, axes: Axes, dtype: Any) -> tuple[jax.Array, Any]:
    return lookup(table, ids, axes, dtype), (table, ids)


def _backward(axes: Axes, dtype: Any, residuals: Any, dx: jax.Array) -> tuple[jax.Array, None]:
    table, ids = residuals

    def program(ids, dx):
        return (jnp.zeros((1, *table.shape), table.dtype).at[0, ids].add(dx.astype(table.dtype)),)

    # A device adds up its own rows first. XLA would rather exchange the rows of all devices.
    rows = ("batch",) if len(ids) > 1 else ()  # positions may be one row for the whole batch
    d_tables = on_each_device(program, [rows, rows], [rows], BATCH_AXES)(ids, dx)[0]
    return constrain(d_tables.sum(0), axes), None


lookup.defvjp(_forward, _backward)
