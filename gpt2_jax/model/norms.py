"""Holds the normalization layers over the model width (`model.norm`).

To add one, write a function and its entry in `NORMS`, and add its name to `NORMS` of the config.

LayerNorm has a gradient of its own, because autodiff keeps the normalized input in float32 for the
backward pass. Ours keeps the input in the compute dtype, and two numbers for each token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig, ModelConfig

_SCALE_INIT = nn.with_logical_partitioning(nn.initializers.ones, ("vector",))
_BIAS_INIT = nn.with_logical_partitioning(nn.initializers.zeros, ("vector",))


class LayerNorm(nn.Module):
    """Normalizes over D with scale and bias (Ba et al. 2016), by `layer_norm`.

    Attributes:
      epsilon: added to the variance.
      dtype: dtype of the result.
      use_bias: whether there is a bias.
    """

    epsilon: float
    dtype: Any
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [..., D]."""
        scale: Any = self.param("scale", _SCALE_INIT, x.shape[-1:], jnp.float32)
        if self.use_bias:
            bias: Any = self.param("bias", _BIAS_INIT, x.shape[-1:], jnp.float32)
        else:
            bias = jnp.zeros(x.shape[-1:], jnp.float32)
        y: Any = layer_norm(x, scale, bias, self.epsilon)
        return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, epsilon: float) -> jax.Array:
    """Returns (x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis, in float32.

    The statistics are float32, too. The variance is not E[x^2] - E[x]^2, which cancels on the large
    activations of trained models.
    """
    return _forward(x, scale_D, bias_D, epsilon)[0]


def _forward(x, scale_D, bias_D, epsilon):
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + epsilon)
    # Flax's order of operations, and so the same numbers.
    y = (wide - mean) * (inverse * scale_D) + bias_D
    return y, (x, scale_D, mean[..., 0], inverse[..., 0])


def _backward(epsilon, residuals, dy):
    x, scale_D, mean, inverse = residuals
    mean, inverse = mean[..., None], inverse[..., None]
    normalized = (x.astype(jnp.float32) - mean) * inverse
    tokens = tuple(range(x.ndim - 1))
    d_normalized = dy * scale_D
    along = (d_normalized * normalized).mean(-1, keepdims=True)
    dx = inverse * (d_normalized - d_normalized.mean(-1, keepdims=True) - normalized * along)
    return dx.astype(x.dtype), (dy * normalized).sum(tokens), dy.sum(tokens)


layer_norm.defvjp(_forward, _backward)


def _make_layer_norm(config: ModelConfig, compute: ComputeConfig, name: str | None) -> nn.Module:
    if not compute.plain:
        return LayerNorm(config.layer_norm_epsilon, compute.dtype, config.bias, name=name)
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=compute.dtype,
        param_dtype=jnp.float32,
        use_bias=config.bias,
        use_fast_variance=False,  # see `layer_norm`
        scale_init=_SCALE_INIT,
        bias_init=_BIAS_INIT,
        name=name,
    )


def _make_rms_norm(config: ModelConfig, compute: ComputeConfig, name: str | None) -> nn.Module:
    """Makes an RMSNorm with scale only, its statistic in float32 (Zhang and Sennrich 2019)."""
    return nn.RMSNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=compute.dtype,
        param_dtype=jnp.float32,
        scale_init=_SCALE_INIT,
        name=name,
    )


class Norm(NamedTuple):
    """Describes one normalization.

    Attributes:
      make: (config, how to compute, name) -> its module.
      num_params: (width that it normalizes over, whether it may have biases) -> the number of its
        parameters.
    """

    make: Callable[[ModelConfig, ComputeConfig, str | None], nn.Module]
    num_params: Callable[[int, bool], int]


NORMS: dict[str, Norm] = {
    "layer": Norm(_make_layer_norm, lambda width, bias: (2 if bias else 1) * width),
    "rms": Norm(_make_rms_norm, lambda width, bias: width),
}

QK_NORMS: dict[str, Norm | None] = {"none": None, "rms": NORMS["rms"]}
"""Norm of queries and keys -> what normalizes each head over K, with one gain for all heads.

Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters", do so by LayerNorm.
"""


def make_norm(config: ModelConfig, compute: ComputeConfig, name: str | None = None) -> Any:
    """Returns the module that the config selects; it maps [..., D] to [..., D].

    Args:
      config: which function it is.
      compute: gives the dtype, and whether autodiff is to see plain operations.
      name: its name in the module that contains it.
    """
    return NORMS[config.norm].make(config, compute, name)


def num_params(config: ModelConfig) -> int:
    """Returns the number of parameters of one norm over D."""
    return NORMS[config.norm].num_params(config.d_model, config.bias)


def qk_num_params(config: ModelConfig) -> int:
    """Returns the number of parameters that normalize the queries and keys of one layer."""
    norm = QK_NORMS[config.qk_norm]
    return 2 * norm.num_params(config.head_dim, config.bias) if norm else 0
