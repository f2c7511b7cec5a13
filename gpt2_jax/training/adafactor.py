"""Adafactor, whose second moments take the memory of vectors instead of matrices."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

from gpt2_jax.config import OptimizerConfig
from gpt2_jax.training.matrices import is_boxed, shape_as_matrices


def adafactor_rule(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns Adafactor's update rule, to be followed by decay and learning rate.

    It is that of Shazeer and Stern 2018 as Optax composes it, without momentum: the gradient over
    the root of its factored second moment, clipped to a root mean square of 1, times the root mean
    square of the parameter (at least 0.001). Each matrix of a block is treated by itself, as if
    layers were not stacked. Matrices with a side below 128 are not factored.
    """
    del config  # its moments have no constants to choose
    return _for_each_matrix(
        optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
        )
    )


def _for_each_matrix(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a rule that applies `rule` to each matrix of the blocks, and to each other array.

    Its state is a tuple of the states of `rule` in the order of the parameters, with an axis of
    matrices in front. It is small, and so every device holds all of it.
    """

    def init(params: Any) -> tuple[Any, ...]:
        leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_boxed)
        bare = [(path, leaf.value if is_boxed(leaf) else leaf) for path, leaf in leaves]
        return tuple(jax.vmap(rule.init)(_as_matrices(path, leaf)) for path, leaf in bare)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, tuple[Any, ...]]:
        leaves, structure = jax.tree_util.tree_flatten_with_path(updates)
        results = [
            jax.vmap(rule.update)(_as_matrices(path, leaf), old, _as_matrices(path, param))
            for (path, leaf), old, param in zip(leaves, state, jax.tree.leaves(params), strict=True)
        ]
        restored = [
            _as_stored(path, leaf, new)
            for (path, leaf), (new, _) in zip(leaves, results, strict=True)
        ]
        return jax.tree.unflatten(structure, restored), tuple(new for _, new in results)

    return optax.GradientTransformation(init, update)


def _as_matrices(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    order, shape = shape_as_matrices(path, leaf)
    return leaf.transpose(order).reshape(shape)


def _as_stored(path: tuple[Any, ...], like: jax.Array, matrices: Any) -> jax.Array:
    """Returns the inverse of `_as_matrices` for an array like `like`."""
    order, _ = shape_as_matrices(path, like)
    shape = tuple(like.shape[axis] for axis in order)
    return matrices.reshape(shape).transpose(tuple(int(i) for i in np.argsort(order)))
