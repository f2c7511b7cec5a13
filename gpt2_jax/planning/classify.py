"""Classifies what a collective transfers by the shapes of its arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.model.defaults import loss_positions
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.parallel.platforms import platform_of
from gpt2_jax.planning.hlo import Array


def classify_transfer(config: Config, params: Any, kind: str, arrays: Sequence[Array]) -> str:
    """Returns what a collective transfers, as `Transfer.of` names it, by the shapes of its arrays.

    A parameter may move whole or sharded, one layer or all, with one axis split in two by FSDP. An
    array without a parameter's shape is an activation if one of its axes counts tokens; otherwise
    it is a padded parameter.

    Args:
      config: config of the run.
      params: abstract parameters with their shardings.
      kind: one of `transfers.KINDS`.
      arrays: the arrays that the collective transfers.
    """
    # Norms, biases and sums of losses are so small that only their latency counts.
    small = 16 * config.model.mlp_width
    large = [array for array in arrays if array.elements > small]
    if not large:
        return "scalars"
    shapes = set().union(*map(_shapes, jax.tree.leaves(params)))
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    rows = rows_per_device(config.train, mesh.shape)
    length = config.model.context_length
    chunk = loss_positions(config.compute.loss_chunk, rows, length, platform_of(mesh))
    lengths = {length, chunk or length}
    tokens = lengths | {rows * length for length in lengths}
    for array in large:
        if tokens & set(array.dims) and shapes.isdisjoint(_unsplit(array.dims, lengths)):
            return "activations"
    return "parameters" if kind == "all-gather" else "gradients"


def _unsplit(dims: Sequence[int], lengths: set[int]) -> set[tuple[int, ...]]:
    """Returns the shape, and all shapes with two axes merged that do not count tokens."""
    axes = [i for i, size in enumerate(dims) if size not in lengths]
    merged = {
        _plain(
            [*(size for k, size in enumerate(dims) if k not in pair), dims[pair[0]] * dims[pair[1]]]
        )
        for pair in itertools.combinations(axes, 2)
    }
    return merged | {_plain(dims)}


def _shapes(leaf: Any) -> set[tuple[int, ...]]:
    """Returns the shapes a parameter may move in: whole or sharded, all layers or one."""
    shapes = set()
    spec, mesh = leaf.sharding.spec, leaf.sharding.mesh
    for cut in ((), ("fsdp",), ("tensor",), ("fsdp", "tensor")):
        dims = [
            size // (mesh.shape[axis] if axis in cut else 1)
            for size, axis in itertools.zip_longest(leaf.shape, spec)
        ]
        shapes |= {_plain(dims), _plain(dims[1:])}
    return shapes


def _plain(dims: Sequence[int]) -> tuple[int, ...]:
    """Returns the dimensions above 1 in order of size, because layouts permute them."""
    return tuple(sorted(size for size in dims if size > 1))
