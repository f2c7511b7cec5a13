"""Lays arrays out on the mesh by the logical names of their axes; without a mesh it does nothing.

FSDP shards every matrix over devices that also divide the batch. A device gathers the layer that it
computes with, in the compute dtype, and frees it afterwards; the gradient is reduced and scattered
in the opposite direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax.linen import spmd

from gpt2_jax.parallel.mesh import BATCH_AXES, batch_shards

Axes = tuple[str | None, ...]


def constrain(x: jax.Array, axes: Axes) -> jax.Array:
    """Returns x, constrained to the mesh axes of its logical names; unchanged without a mesh.

    Raises:
      ValueError: for a name without a rule, which flax alone would ignore.
    """
    return spmd.with_logical_constraint(x, axes, fallback=spmd.RulesFallback.RAISE_ERROR)


def gather(w: jax.Array, axes: Axes, dtype: Any) -> jax.Array:
    """Returns a parameter in the compute dtype, gathered over all but the tensor axis.

    The first constraint makes XLA cast before it gathers, which then moves half as many bytes.
    """
    w = w.astype(dtype)
    if jax.sharding.get_abstract_mesh().empty:
        return w
    return constrain(constrain(w, axes), tuple(map(_gathered, axes)))


def _gathered(name: str | None) -> str | None:
    """Returns the name of an axis that stays sharded; None if batch axes shard it."""
    (over,) = spmd.logical_to_mesh_axes((name,)) or (None,)
    return None if set(jax.tree.leaves(over)) & set(BATCH_AXES) else name


def merged(axes: Axes) -> Axes | None:
    """Returns the logical name of the one axis that adjacent axes of a parameter merge into.

    Returns:
      (the name,), or None if the mesh in force divides one of several axes, so that a merged axis
      could not be laid out in the same way.
    """
    if len(axes) == 1:
        return axes
    sizes = jax.sharding.get_abstract_mesh().shape
    over = jax.tree.leaves(tuple(spmd.logical_to_mesh_axes(axes) or ()))
    return (None,) if all(sizes.get(axis, 1) == 1 for axis in over) else None


def on_each_device(
    f: Callable[..., Any],
    in_axes: Sequence[Axes],
    out_axes: Sequence[Axes],
    over: Sequence[str] | None = None,
) -> Callable[..., Any]:
    """Returns f as a program that each device runs on its shards; f itself without a mesh.

    Args:
      f: takes arrays and returns a tuple of arrays.
      in_axes, out_axes: logical names of each array's axes; axes without a name are not sharded.
      over: the mesh axes over which f sees shards; by default all. Along other mesh axes an array
        looks whole to f, and XLA divides the work.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return f
    return jax.shard_map(
        f,
        in_specs=tuple(map(spmd.logical_to_mesh_axes, in_axes)),
        out_specs=tuple(map(spmd.logical_to_mesh_axes, out_axes)),
        axis_names=set(mesh.axis_names if over is None else over),
        check_vma=False,  # Pallas kernels do not declare over which axes their results vary
    )


def devices_of_batch() -> int:
    """Returns the number of parts that the mesh in force divides a batch into; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else batch_shards(mesh)


def sum_over_batch(x: jax.Array) -> jax.Array:
    """Returns the sum over the devices of the batch axes; for use inside `on_each_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.psum(x, BATCH_AXES)
