"""Holds the activation functions of the MLP (`model.activation`), by Hugging Face's names.

To add one, add its entry here and its name to `ACTIVATIONS` of the config.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "tanh": nn.tanh,
}
