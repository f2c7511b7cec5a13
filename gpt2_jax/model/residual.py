"""Holds the ways in which attention and MLP meet the residual stream, and later layers early ones.

These are where the norms stand (`model.norm_position`), how the projections that write into the
stream are initialized (`model.residual_init`), and what later layers see of the embeddings
(`model.x0_residual`) and of the first layer's values (`model.value_residual`). To add a place or an
initialization, write a function and its entry in the table, and add its name to the tuple of the
same name in the config.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.layout import constrain
from gpt2_jax.model.mup import matrix_std

INIT_STD = 0.02  # of all matrices, but for what is said here (Radford et al. 2018, section 4.1)

Normalize = Callable[[jax.Array], jax.Array]


class NormPosition(NamedTuple):
    """Describes where norms stand: x becomes after(norm, x + f(before(norm, x))).

    Attributes:
      before: (norm, residual stream [B, T, D]) -> the input of attention or MLP.
      after: (norm, the stream with their output added) -> the new stream.
      has_final: whether a norm follows the last block.
    """

    before: Callable[[Normalize, jax.Array], jax.Array]
    after: Callable[[Normalize, jax.Array], jax.Array]
    has_final: bool


def _normalized(norm: Normalize, x_BxTxD: jax.Array) -> jax.Array:
    return norm(x_BxTxD)


def _unchanged(norm: Normalize, x_BxTxD: jax.Array) -> jax.Array:
    return x_BxTxD


NORM_POSITIONS: dict[str, NormPosition] = {
    # Radford et al. 2019, section 2.3: x + f(norm(x)), and a norm behind the last block.
    "pre": NormPosition(_normalized, _unchanged, has_final=True),
    # Vaswani et al. 2017, section 3.1: norm(x + f(x)).
    "post": NormPosition(_unchanged, _normalized, has_final=False),
}


RESIDUAL_INITS: dict[str, Callable[[ModelConfig], float]] = {
    # Radford et al. 2019, section 2.3: there are 2 L such projections.
    "scaled": lambda config: INIT_STD / math.sqrt(2 * config.num_layers),
    "plain": lambda config: INIT_STD,
    # A block then begins as the identity (Zhang et al. 2019, "Fixup").
    "zero": lambda config: 0.0,
}
"""Initialization -> the deviation of the projections that end attention and MLP, without muP."""


def residual_std(config: ModelConfig) -> float:
    """Returns the initial deviation of the projections that write into the residual stream."""
    return matrix_std(config, RESIDUAL_INITS[config.residual_init](config))


class Stream(NamedTuple):
    """Holds what a block gets from the one before it, which in GPT-2 is x alone.

    Attributes:
      x_BxTxD: the residual stream.
      first_v_BxTxHxK: the values of the first layer, before they are mixed; None if no layer needs
        them.
    """

    x_BxTxD: jax.Array
    first_v_BxTxHxK: jax.Array | None


class Mix(nn.Module):
    """Computes a x + b y with two learned numbers, which begin at 1 and 0."""

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Returns the mixture in the shape and dtype of x."""
        ones = nn.with_logical_partitioning(nn.initializers.ones, ())
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ())
        of_x: Any = self.param("of_x", ones, (), jnp.float32)
        of_y: Any = self.param("of_y", zeros, (), jnp.float32)
        return (of_x * x + of_y * y).astype(x.dtype)


def empty_values(config: ModelConfig, x_BxTxD: jax.Array) -> jax.Array | None:
    """Returns zeros in the shape of a layer's values, which the first layer replaces by its own.

    Returns None without `model.value_residual` (Zhou et al. 2024, "Value Residual Learning").
    """
    if not config.value_residual:
        return None
    shape = (*x_BxTxD.shape[:2], config.num_heads, config.head_dim)
    zeros = jnp.zeros(shape, x_BxTxD.dtype)
    return constrain(zeros, ("batch", "length", "act_heads", "head_dim"))


def is_first_layer(config: ModelConfig) -> jax.Array | None:
    """Returns for each layer whether it is the first, booleans [L]; None if no layer asks."""
    return jnp.arange(config.num_layers) == 0 if config.value_residual else None


def mix_num_params(config: ModelConfig) -> int:
    """Returns the number of parameters of the mixtures of one layer."""
    return 2 * (config.x0_residual + config.value_residual)
