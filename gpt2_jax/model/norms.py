"""Holds the normalization layers over the model width (`model.norm`).

To add one, write a function and its entry in `NORMS`, and add its name to `NORMS` of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig


def _layer_norm(config: ModelConfig, dtype: Any, name: str | None) -> nn.Module:
    """Makes a LayerNorm with scale and bias, its statistics in float32 (Ba et al. 2016)."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=dtype,
        param_dtype=jnp.float32,
        # Flax's default, E[x^2] - E[x]^2, cancels on the large activations of trained models.
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("vector",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("vector",)),
        name=name,
    )


def _rms_norm(config: ModelConfig, dtype: Any, name: str | None) -> nn.Module:
    """Makes an RMSNorm with scale only, its statistic in float32 (Zhang and Sennrich 2019)."""
    return nn.RMSNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=dtype,
        param_dtype=jnp.float32,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("vector",)),
        name=name,
    )


class Norm(NamedTuple):
    """Describes one normalization.

    Attributes:
      make: (config, compute dtype, name) -> its module.
      num_params: model width D -> the number of its parameters.
    """

    make: Callable[[ModelConfig, Any, str | None], nn.Module]
    num_params: Callable[[int], int]


NORMS: dict[str, Norm] = {
    "layer": Norm(_layer_norm, lambda d_model: 2 * d_model),
    "rms": Norm(_rms_norm, lambda d_model: d_model),
}


def make_norm(config: ModelConfig, dtype: Any, name: str | None = None) -> Any:
    """Returns the module that the config selects; it maps [..., D] to [..., D] in `dtype`."""
    return NORMS[config.norm].make(config, dtype, name)


def num_params(config: ModelConfig) -> int:
    """Returns the number of parameters of one norm."""
    return NORMS[config.norm].num_params(config.d_model)
