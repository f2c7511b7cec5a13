"""Classifies what a collective transfers by the shapes of its arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.planning.hlo import Array


def classify_transfer(config: Config, params: Any, kind: str, arrays: Sequence[Array]) -> str:
    """Returns what a collective transfers, as `Transfer.of` names it, by the shapes of its arrays.

    A parameter may move whole or sharded, one layer or all, with one axis split in two by FSDP, and
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
    shapes = set().union(*map(_shapes, jax.tree.leaves(params)))
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    rows = rows_per_device(config.train, mesh.shape)
    lengths = {
        config.model.context_length,
        config.compute.loss_chunk or config.model.context_length,
    }
    tokens = lengths | {rows * length for length in lengths}
    for array in large:
        # A part of a parameter may be as long as a chunk of the loss, but only logits are as wide
        # as the vocabulary too, and only kinds that divide an array split its axes.
        is_split = kind != "all-reduce" and config.model.padded_vocab_size not in array.dims
        kept = {config.model.context_length} if is_split else lengths
        if tokens & set(array.dims) and shapes.isdisjoint(_unsplit(array.dims, kept)):
            return "activations"
    return "parameters" if kind == "all-gather" else "gradients"


def _unsplit(dims: Sequence[int], kept: set[int]) -> set[tuple[int, ...]]:
    """Returns the shape, and all shapes with two axes merged whose sizes are not to be kept."""
    axes = [i for i, size in enumerate(dims) if size not in kept]
    merged = {
        _plain(
            [*(size for k, size in enumerate(dims) if k not in pair), dims[pair[0]] * dims[pair[1]]]
        )
        for pair in itertools.combinations(axes, 2)
    }
    return merged | {_plain(dims)}


def _shapes(leaf: Any) -> set[tuple[int, ...]]:
    """Returns the shapes a parameter may move in: whole or sharded, all layers or one, merged."""
    shapes = set()
    spec, mesh = leaf.sharding.spec, leaf.sharding.mesh
    for cut in ((), ("fsdp",), ("tensor",), ("fsdp", "tensor")):
        dims = [
            size // (mesh.shape[axis] if axis in cut else 1)
            for size, axis in itertools.zip_longest(leaf.shape, spec)
        ]
        for merged in _merged(dims[1:]):
            shapes |= {_plain((dims[0], *merged)), _plain(merged)}
    return shapes


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
