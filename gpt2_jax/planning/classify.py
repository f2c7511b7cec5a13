"""What a collective carries, told by the shapes of its arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.planning.hlo import Array


def contents(config: Config, params: Any, kind: str, arrays: Sequence[Array]) -> str:
    """What a collective carries, told by the shapes of its arrays.

    A parameter may travel whole or in parts, one layer or all, with one axis split in two by FSDP.
    What has no parameter's shape is an activation if it has an axis of tokens, and else a padded
    parameter.
    """
    # Norms, biases and sums of losses: their latency counts only.
    small = 16 * config.model.mlp_width
    large = [array for array in arrays if array.elements > small]
    if not large:
        return "scalars"
    shapes = set().union(*map(_shapes, jax.tree.leaves(params)))
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    rows = rows_per_device(config.train, mesh.shape)
    lengths = {config.model.context_length, config.model.loss_chunk or config.model.context_length}
    tokens = lengths | {rows * length for length in lengths}
    for array in large:
        if tokens & set(array.dims) and shapes.isdisjoint(_unsplit(array.dims, lengths)):
            return "activations"
    return "parameters" if kind == "all-gather" else "gradients"


def _unsplit(dims: Sequence[int], lengths: set[int]) -> set[tuple[int, ...]]:
    """The shape as it is, and with any two axes made one that are none of tokens."""
    axes = [i for i, size in enumerate(dims) if size not in lengths]
    merged = {
        _plain(
            [*(size for k, size in enumerate(dims) if k not in pair), dims[pair[0]] * dims[pair[1]]]
        )
        for pair in itertools.combinations(axes, 2)
    }
    return merged | {_plain(dims)}


def _shapes(leaf: Any) -> set[tuple[int, ...]]:
    """Shapes that a parameter may have on its way: whole or cut, all layers or one."""
    found = set()
    spec, mesh = leaf.sharding.spec, leaf.sharding.mesh
    for cut in ((), ("fsdp",), ("tensor",), ("fsdp", "tensor")):
        dims = [
            size // (mesh.shape[axis] if axis in cut else 1)
            for size, axis in itertools.zip_longest(leaf.shape, spec)
        ]
        found |= {_plain(dims), _plain(dims[1:])}
    return found


def _plain(dims: Sequence[int]) -> tuple[int, ...]:
    """The dimensions in order of size, those of 1 left out: layouts permute them."""
    return tuple(sorted(size for size in dims if size > 1))
