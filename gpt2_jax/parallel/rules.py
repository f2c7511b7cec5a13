"""Which mesh axis each logical axis of the model is cut over, checked.

Flax leaves an array unsharded, without a word, where a name matches no rule or its mesh axis is
already taken. Here every name must have a rule, every rule a user, and no array may name one mesh
axis twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, PartitionSpec

from gpt2_jax.errors import UserError
from gpt2_jax.parallel.mesh import BATCH_AXES

MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Rules:
    """Logical axis -> mesh axis (or axes, or None for whole on every device)."""

    # Parameters.
    vocab: MeshAxes = "tensor"
    position: MeshAxes = "tensor"
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    mlp: MeshAxes = "tensor"
    norm: MeshAxes = "fsdp"
    layers: MeshAxes = None
    # Activations.
    batch: MeshAxes = BATCH_AXES
    length: MeshAxes = None
    act_embed: MeshAxes = None
    act_heads: MeshAxes = "tensor"
    act_mlp: MeshAxes = "tensor"

    def pairs(self) -> tuple[tuple[str, MeshAxes], ...]:
        """The rules as flax takes them."""
        return tuple((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))

    def mesh_axes(self, spec: PartitionSpec) -> PartitionSpec:
        """The mesh axes of one array's logical names.

        Raises:
          ValueError: for a name without a rule, or two names on one mesh axis.
        """
        rules = dict(self.pairs())
        unknown = [name for name in spec if isinstance(name, str) and name not in rules]
        if unknown:
            raise ValueError(f"no sharding rule for logical axis {unknown[0]!r} of {spec}")
        axes = [rules[name] if isinstance(name, str) else name for name in spec]
        taken = [axis for entry in axes for axis in _as_tuple(entry)]
        twice = sorted({axis for axis in taken if taken.count(axis) > 1})
        if twice:
            raise ValueError(f"{spec} is cut over mesh axis {twice[0]!r} twice")
        return PartitionSpec(*axes)


_ACTIVATIONS = ("batch", "length", "act_embed", "act_heads", "act_mlp")


def shardings(boxed: Any, mesh: Mesh, rules: Rules) -> Any:
    """The NamedSharding of every leaf of an abstract tree whose parameters carry logical names.

    Args:
      boxed: tree of `jax.eval_shape`, with flax's partitioning boxes still on.

    Raises:
      ValueError: for unknown, unused or colliding names.
      UserError: for a dimension that its mesh axes do not divide.
    """
    logical = nn.get_partition_spec(boxed)
    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    used = {name for spec in jax.tree.leaves(logical, is_leaf=is_spec) for name in spec}
    unused = {name for name, _ in rules.pairs()} - used - set(_ACTIVATIONS)
    if unused:
        raise ValueError(f"sharding rules that match no parameter: {sorted(unused)}")

    def one(path: Any, leaf: Any, spec: PartitionSpec) -> jax.sharding.NamedSharding:
        axes = rules.mesh_axes(spec)
        for size, entry in zip(leaf.shape, axes, strict=False):
            parts = math.prod(mesh.shape[axis] for axis in _as_tuple(entry))
            if size % parts:
                raise UserError(
                    f"{jax.tree_util.keystr(path)} has a dimension of {size} that mesh "
                    f"{'x'.join(_as_tuple(entry))}={parts} does not divide; choose a mesh that does"
                )
        return jax.sharding.NamedSharding(mesh, axes)

    return jax.tree_util.tree_map_with_path(one, nn.unbox(boxed), logical)


@contextlib.contextmanager
def entered(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """The mesh and the rules as one context to trace a step in: the constraints then take hold."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules.pairs()):
        yield


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
