"""Holds the ways in which attention and MLP meet the residual stream.

These are where the norms stand (`model.norm_position`) and how the projections that write into the
stream are initialized (`model.residual_init`). To add one, write a function and its entry in the
table, and add its name to the tuple of the same name in the config.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from gpt2_jax.config import ModelConfig

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
"""Initialization -> the deviation of the projections that end attention and MLP."""


def residual_std(config: ModelConfig) -> float:
    """Returns the initial deviation of the projections that write into the residual stream."""
    return RESIDUAL_INITS[config.residual_init](config)
