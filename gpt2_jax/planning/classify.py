"""Classifies what a collective transfers by the shapes of its arrays."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.model.defaults import loss_positions
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.parallel.platforms import platform_of
from gpt2_jax.planning.hlo import Array

# Where XLA scatters what it reduces, it pads each part of an axis to a multiple of one of these
# sizes of a TPU's tiles.
_TILES = (8, 16, 32, 128)


def classify_transfer(config: Config, params: Any, kind: str, arrays: Sequence[Array]) -> str:
    """Returns what a collective transfers, as `Transfer.of` names it, by the shapes of its arrays.

    A parameter may move whole or sharded, one layer or all, with an axis split into its parts, and
    with neighboring axes merged, as the two-dimensional gradient [D, 3HK] of c_attn. An array
    without a parameter's shape is an activation if one of its axes counts tokens; otherwise
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
    leaves = jax.tree.leaves(params)
    sizes = leaves[0].sharding.mesh.shape
    shapes = [
        _shapes(leaf.shape, tuple(leaf.sharding.spec), tuple(sizes.items()), kind)
        for leaf in leaves
    ]
    rows = rows_per_device(config.train, sizes)
    length = config.model.context_length
    platform = platform_of(leaves[0].sharding.mesh)
    chunk = loss_positions(config.compute.loss_chunk, rows, length, platform)
    lengths = {length, chunk or length}
    tokens = lengths | {rows * length for length in lengths}
    for array in large:
        plain = _plain(array.dims)
        if tokens & set(plain) and not any(plain in each for each in shapes):
            return "activations"
    return "parameters" if kind == "all-gather" else "gradients"


@functools.cache
def _shapes(
    shape: tuple[int, ...],
    spec: tuple[Any, ...],
    axis_sizes: tuple[tuple[str, int], ...],
    kind: str,
) -> frozenset[tuple[int, ...]]:
    """Returns the shapes that a parameter may move in.

    Args:
      shape: its shape, whose first axis may be that of the layers.
      spec: the mesh axis that shards each of its axes, or None.
      axis_sizes: (mesh axis, size) of each.
      kind: one of `transfers.KINDS`.
    """
    sizes = dict(axis_sizes)
    axes = [
        _forms(size, sizes[axis] if axis else 1, padded=kind == "reduce-scatter")
        for size, axis in itertools.zip_longest(shape, spec)
    ]
    shapes = set()
    for first, *others in itertools.product(*axes):
        for merged in _merged(tuple(itertools.chain(*others))):
            shapes |= {_plain((*first, *merged)), _plain(merged)}
    return frozenset(shapes)


def _forms(size: int, parts: int, *, padded: bool) -> set[tuple[int, ...]]:
    """Returns the axes as which an axis in so many parts may move: whole, a part, or in parts."""
    part = size // parts
    lengths = {part} | {-(-part // tile) * tile for tile in _TILES if padded and parts > 1}
    whole = {(size,), (part,)}
    return whole | {(parts, length) for length in lengths} | {(parts * n,) for n in lengths}


def _merged(dims: Sequence[int]) -> set[tuple[int, ...]]:
    """Returns the shape with neighboring axes merged, or not, in every possible way."""
    shapes = {tuple(dims[:1])}
    for size in dims[1:]:
        apart = {(*shape, size) for shape in shapes}
        shapes = apart | {(*shape[:-1], shape[-1] * size) for shape in shapes}
    return shapes


def _plain(dims: Sequence[int]) -> tuple[int, ...]:
    """Returns the dimensions above 1 in order of size, because layouts permute them."""
    return tuple(sorted(size for size in dims if size > 1))
