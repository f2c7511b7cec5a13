"""Maps the logical axes of the model's arrays to mesh axes, with checks.

Flax silently leaves an array unsharded if a name matches no rule or its mesh axis is already taken.
Here every name must have a rule, every rule must be used, and no array may use a mesh axis twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from gpt2_jax.errors import UserError
from gpt2_jax.parallel.mesh import AXES, BATCH_AXES, divisors

MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Rules:
    """Maps each logical axis to a mesh axis, to several, or to None: whole on every device."""

    # Parameters.
    vocab: MeshAxes = "tensor"
    position: MeshAxes = None
    distance: MeshAxes = "fsdp"  # of relative positions, whose table has no other axis to divide
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    mlp: MeshAxes = "tensor"
    vector: MeshAxes = None  # biases and norms: gathering them costs more than keeping them
    layers: MeshAxes = None
    lora_rank: MeshAxes = None  # of adapters: too short to be worth dividing
    # Activations.
    batch: MeshAxes = BATCH_AXES
    length: MeshAxes = None
    act_embed: MeshAxes = None
    act_heads: MeshAxes = "tensor"
    act_mlp: MeshAxes = "tensor"

    def pairs(self) -> tuple[tuple[str, MeshAxes], ...]:
        """Returns the rules in flax's form."""
        return tuple((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))

    def mesh_axes(self, spec: PartitionSpec) -> PartitionSpec:
        """Returns the mesh axes for the logical names of one array.

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
            raise ValueError(f"{spec} uses mesh axis {twice[0]!r} twice")
        return PartitionSpec(*axes)


_ACTIVATIONS = ("batch", "length", "act_embed", "act_heads", "act_mlp")


def shardings(
    boxed: Any, mesh: Mesh | AbstractMesh, rules: Rules, *, unused: Collection[str] = ()
) -> Any:
    """Returns the NamedSharding of every leaf of a tree whose parameters carry logical names.

    Args:
      boxed: tree of `jax.eval_shape`, with flax's partitioning boxes still on.
      mesh: to shard over.
      rules: see `Rules`.
      unused: logical axes that this variant of the model does not have; every other rule must match
        a parameter.

    Raises:
      ValueError: for unknown, unused or colliding names.
      UserError: for a dimension that its mesh axes do not divide; the message lists meshes that do.
    """
    leaves = _leaves(boxed, rules)
    used = {name for leaf in leaves for name in leaf.names}
    unmatched = {name for name, _ in rules.pairs()} - used - {*_ACTIVATIONS, *unused}
    if unmatched:
        raise ValueError(f"sharding rules that match no parameter: {sorted(unmatched)}")
    for leaf in leaves:
        if problem := leaf.problem(mesh.shape):
            valid = divisible_meshes(boxed, rules, mesh.size)
            choices = " or ".join("x".join(map(str, sizes)) for sizes in valid[:6])
            raise UserError(
                f"{problem}; meshes (data x fsdp x tensor) of {mesh.size} devices that divide this "
                f"model: {choices}"
            )
    specs = [jax.sharding.NamedSharding(mesh, leaf.spec) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(nn.unbox(boxed)), specs)


def divisible_meshes(boxed: Any, rules: Rules, num_devices: int) -> list[tuple[int, int, int]]:
    """Returns the (data, fsdp, tensor) meshes of so many devices that divide every parameter.

    Meshes that keep the least of the state on each device come first, and among these the ones with
    less tensor parallelism.
    """
    leaves = _leaves(boxed, rules)
    sizes = divisors(num_devices)
    meshes = [
        (num_devices // (fsdp * tensor), fsdp, tensor)
        for fsdp in sizes
        for tensor in sizes
        if num_devices % (fsdp * tensor) == 0
    ]
    valid = [
        m
        for m in meshes
        if not any(leaf.problem(dict(zip(AXES, m, strict=True))) for leaf in leaves)
    ]
    return sorted(valid, key=lambda m: (-m[1] * m[2], m[2]))


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """Describes a parameter or an array of the optimizer: its shape, names and mesh axes."""

    path: str
    shape: tuple[int, ...]
    names: PartitionSpec
    spec: PartitionSpec

    def problem(self, axis_sizes: Mapping[str, int]) -> str | None:
        """Returns a message about the first dimension that the mesh does not divide, or None."""
        for size, name, entry in zip(self.shape, self.names, self.spec, strict=False):
            axes = _as_tuple(entry)
            num_shards = math.prod(axis_sizes[axis] for axis in axes)
            if size % num_shards:
                multiple = f", unless model.vocab_multiple={math.lcm(128, num_shards)}"
                return (
                    f"mesh.{'*'.join(axes)}={num_shards} does not divide axis {name!r} of "
                    f"{self.path}, which is {size}{multiple if name == 'vocab' else ''}"
                )
        return None


def _leaves(boxed: Any, rules: Rules) -> list[_Leaf]:
    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    names = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=is_spec)
    arrays = jax.tree_util.tree_leaves_with_path(nn.unbox(boxed))
    return [
        _Leaf(
            jax.tree_util.keystr(path, simple=True, separator="/"),
            array.shape,
            spec,
            rules.mesh_axes(spec),
        )
        for (path, array), spec in zip(arrays, names, strict=True)
    ]


@contextlib.contextmanager
def sharding_context(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Puts mesh and rules into force: programs that are traced inside obey their constraints."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules.pairs()):
        yield


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
