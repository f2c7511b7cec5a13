"""How arrays lie on the mesh, by logical names of their axes; without a mesh all of it is void.

FSDP keeps every matrix cut over devices that also divide the batch. A device gathers the part of a
layer that it computes with, in the compute dtype, and lets it go again; the gradient goes the other
way, summed over the devices and cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax.linen import spmd

from gpt2_jax.parallel.mesh import BATCH_AXES

Axes = tuple[str | None, ...]


def constrain(x: jax.Array, axes: Axes) -> jax.Array:
    """Fixes how x lies on the mesh, by logical names; no mesh in force leaves x as it is.

    Raises:
      ValueError: for a name without a rule, which flax by itself would pass over.
    """
    return spmd.with_logical_constraint(x, axes, fallback=spmd.RulesFallback.RAISE_ERROR)


def gather(w: jax.Array, axes: Axes, dtype: Any) -> jax.Array:
    """A parameter in the compute dtype, whole but for what tensor parallelism cuts.

    The first constraint has the cast done before the gather, which then moves half as much.
    """
    w = w.astype(dtype)
    if jax.sharding.get_abstract_mesh().empty:
        return w
    return constrain(constrain(w, axes), tuple(map(_gathered, axes)))


def _gathered(name: str | None) -> str | None:
    """The name of an axis that stays cut; None for one that is cut over devices of the batch."""
    (over,) = spmd.logical_to_mesh_axes((name,)) or (None,)
    return None if set(jax.tree.leaves(over)) & set(BATCH_AXES) else name


def on_each_device(
    f: Callable[..., Any],
    in_axes: Sequence[Axes],
    out_axes: Sequence[Axes],
    over: Sequence[str] | None = None,
) -> Callable[..., Any]:
    """f as the program of one device on its parts of the arrays; f itself without a mesh in force.

    Args:
      f: takes arrays, returns a tuple of arrays.
      in_axes, out_axes: logical names of each array's axes; axes left out are whole.
      over: the mesh axes that f takes the part of, all unless named. An array cut over another one
        still looks whole to f, and XLA sees to that cut.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return f
    return jax.shard_map(
        f,
        in_specs=tuple(map(spmd.logical_to_mesh_axes, in_axes)),
        out_specs=tuple(map(spmd.logical_to_mesh_axes, out_axes)),
        axis_names=set(mesh.axis_names if over is None else over),
        check_vma=False,  # Pallas kernels do not say over which axes their results vary
    )


def sum_over_batch(x: jax.Array) -> jax.Array:
    """The sum over the devices of the batch axes, inside `on_each_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.psum(x, BATCH_AXES)
