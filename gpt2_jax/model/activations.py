"""Holds the activation functions of the MLP (`model.activation`), by Hugging Face's names.

To add one, add its entry here and its name to `ACTIVATIONS` of the config; a gated one belongs to
`GATES` here and to `GATED_ACTIVATIONS` there.

GELU's tanh form also has a gradient of its own, because autodiff keeps several arrays as large as
its input for the backward pass, and reading them costs more than computing them again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "tanh": nn.tanh,
    # So et al. 2021, "Primer: Searching for Efficient Transformers for Language Modeling".
    "relu2": lambda x: jnp.square(nn.relu(x)),
}

GATES: dict[str, Activation] = {
    # Shazeer 2020, "GLU Variants Improve Transformer".
    "swiglu": nn.silu,
}
"""Gated activation -> what the gate x Wg goes through before it multiplies x Wu."""


_SCALE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


@jax.custom_vjp
def gelu_tanh(x: jax.Array) -> jax.Array:
    """Returns GELU in its tanh form (Hendrycks and Gimpel 2016); its backward pass needs only x."""
    return nn.gelu(x, approximate=True)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu_tanh(x), x


def _backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # In float32 whatever the dtype of x: the fusion that multiplies dy by it stores none of it.
    wide: Any = x.astype(jnp.float32)
    square = wide * wide
    tanh = jnp.tanh(_SCALE * (wide + _CUBIC * square * wide))
    inner_slope = _SCALE * (1 + 3 * _CUBIC * square)
    slope = 0.5 * (1 + tanh) + 0.5 * wide * (1 - tanh * tanh) * inner_slope
    return ((dy.astype(jnp.float32) * slope).astype(x.dtype),)


gelu_tanh.defvjp(_forward, _backward)

_OWN_GRADIENTS: dict[str, Activation] = {"gelu_new": gelu_tanh}


def make_activation(name: str, *, plain: bool) -> Activation:
    """Returns the activation of a name in `ACTIVATIONS`.

    Args:
      name: its name.
      plain: whether autodiff is to see plain operations, even where there is a gradient of ours.
    """
    return ACTIVATIONS[name] if plain else _OWN_GRADIENTS.get(name, ACTIVATIONS[name])
