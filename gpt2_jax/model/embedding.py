"""The lookup of rows of an embedding table, with a gradient that loses no frequent token."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.model.layout import Axes, constrain, gather


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lookup(table_VxD: jax.Array, ids: jax.Array, axes: Axes, dtype: Any) -> jax.Array:
    """Rows of the table in the compute dtype: [..., D] of int32 ids [...].

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
    d_table = jnp.zeros(table.shape, table.dtype).at[ids].add(dx.astype(table.dtype))
    return constrain(d_table, axes), None


lookup.defvjp(_forward, _backward)
