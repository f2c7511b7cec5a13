"""Muon for the matrices of the blocks, and Adam for everything else.

Optax's own `muon` takes every array of two axes for a matrix. With layers stacked, those are the
norms, the biases and the embeddings, and no kernel. Here names decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from gpt2_jax.config import OptimizerConfig
from gpt2_jax.training.matrices import is_boxed, matrix_axes, shape_as_matrices

# `optimizer.muon_scale` -> the factor for a matrix of so many inputs and outputs.
_FACTORS: dict[str, Callable[[int, int], float]] = {
    "adam": lambda inputs, outputs: 0.2 * math.sqrt(max(inputs, outputs)),
    "aspect": lambda inputs, outputs: math.sqrt(max(1, outputs / inputs)),
}


def muon_rule(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Returns Muon's update rule (Jordan 2024), to be followed by decay and learning rate.

    Each matrix [I, O] of a block, those of queries, keys and values apart, gets its momentum with
    all singular values brought near 1, times a factor that `optimizer.muon_scale` chooses:

    * adam: 0.2 sqrt(max(I, O)), with which the update's size is about that of Adam, so that both
      can use one learning rate (Liu et al. 2025, Moonlight);
    * aspect: sqrt(max(1, O / I)), as in Jordan's own code.
    """
    matrices = optax.chain(
        scale_by_muon(beta=config.muon_momentum, weight_dimension_numbers=_numbers),
        _scale_by_shape(_FACTORS[config.muon_scale]),
    )
    others = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return optax.partition({"muon": matrices, "adam": others}, muon_groups)


def muon_groups(params: Any) -> Any:
    """Returns a tree like `params` of the name of each parameter's rule: muon or adam."""
    # A label stands for the whole box of a parameter, so that none remains around nothing.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "adam" if matrix_axes(path) is None else "muon",
        params,
        is_leaf=is_boxed,
    )


def _numbers(matrices: Any) -> Any:
    """Returns the dimension numbers of a tree in which other parameters are `MaskedNode`s."""

    def numbers(path: tuple[Any, ...], _: Any) -> MuonDimensionNumbers:
        axes = matrix_axes(path)
        assert axes is not None
        return MuonDimensionNumbers(*axes)

    return jax.tree_util.tree_map_with_path(numbers, matrices)


def _scale_by_shape(factor: Callable[[int, int], float]) -> optax.GradientTransformation:
    """Returns a rule that multiplies matrices of I inputs and O outputs by factor(I, O)."""

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        _, (_, inputs, outputs) = shape_as_matrices(path, update)
        return factor(inputs, outputs) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
