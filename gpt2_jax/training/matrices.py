"""Names the matrices of the model, for optimizers that treat a matrix as a whole.

A kernel holds several matrices: one for each layer, and in `c_attn` those of queries, keys and
values. A function of the matrix, as in Muon and Adafactor, must see each of them apart, and inputs
and outputs as one axis each, whatever axes they are stored with.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax

from gpt2_jax.model.lora import LORA_A, LORA_B

# A of an adapter has the inputs of the kernel, B its outputs; the rank is one axis.
_AXES_OF_A = {("attn", "c_proj"): ((-3, -2), (-1,))}  # [L, H, K, r]
_AXES_OF_B = {("attn", "c_attn"): ((-4,), (-2, -1))}  # [L, r, 3, H, K]
_AXES_OF_MATRIX = ((-2,), (-1,))  # [L, inputs, outputs]
# (module, linear) -> the axes of its kernel to contract, and its new axes. Negative numbers serve
# kernels with or without an axis of layers in front. All other axes count matrices.
_AXES: dict[tuple[str, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("attn", "c_attn"): ((-4,), (-2, -1)),  # [L, D, 3, H, K]
    ("attn", "c_proj"): ((-3, -2), (-1,)),  # [L, H, K, D]
    ("mlp", "c_fc"): ((-2,), (-1,)),  # [L, D, F]
    ("mlp", "c_gate"): ((-2,), (-1,)),  # [L, D, F]
    ("mlp", "c_proj"): ((-2,), (-1,)),  # [L, F, D]
}


def matrix_axes(path: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Returns the axes of a parameter's (inputs, outputs), or None if it is no matrix of a block.

    Matrices are kernels and the factors of adapters.

    Args:
      path: the parameter's path in the tree of parameters, as JAX gives it.

    Raises:
      ValueError: for a kernel whose axes are not known.
    """
    names = tuple(entry.key for entry in path if hasattr(entry, "key"))
    if names[-1] in (LORA_A, LORA_B):
        of_adapter = _AXES_OF_A if names[-1] == LORA_A else _AXES_OF_B
        return of_adapter.get(names[-3:-1], _AXES_OF_MATRIX)
    if names[-1] != "kernel":
        return None
    if names[-3:-1] not in _AXES:
        raise ValueError(f"matrices._AXES lacks the kernel {'/'.join(map(str, names))}")
    return _AXES[names[-3:-1]]


def is_boxed(leaf: Any) -> bool:
    """Returns whether a leaf of a tree of parameters carries its logical axis names."""
    return isinstance(leaf, nn.meta.AxisMetadata)


def shape_as_matrices(path: tuple[Any, ...], leaf: jax.Array) -> tuple[tuple[int, ...], ...]:
    """Returns the (order of the axes, shape) in which a parameter is [count, inputs, outputs].

    A parameter that is no kernel of a block becomes [L, ...] if it is stacked over layers, and
    otherwise [1, ...], with all axes behind the first of a layer merged.
    """
    axes, shape = tuple(range(leaf.ndim)), leaf.shape
    if (matrix := matrix_axes(path)) is None:
        stacked = getattr(path[0], "key", None) == "h"
        count, *sizes = shape if stacked else (1, *shape)
        if len(sizes) > 2:
            sizes = [sizes[0], math.prod(sizes[1:])]
        return axes, (count, *sizes)
    inputs, outputs = (tuple(axis % leaf.ndim for axis in of) for of in matrix)
    count = tuple(axis for axis in axes if axis not in inputs + outputs)
    sizes = (math.prod(shape[axis] for axis in of) for of in (count, inputs, outputs))
    return count + inputs + outputs, tuple(sizes)
