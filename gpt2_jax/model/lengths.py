"""Runs a trained model on windows of another length than it was trained on.

Only a learned table of positions ends at the context length. Every other encoding goes on, and so
the same parameters, resized here where a table of distances needs it, are a model of any length.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.positions import ENCODINGS


def limit(config: ModelConfig) -> str:
    """Returns what limits the length of a text, for messages that say that it is exceeded."""
    if config.longest == config.context_length:
        return (
            f"the model's context of {config.context_length}, beyond which model.position="
            f"{config.position} has no positions"
        )
    return f"the {config.longest} tokens that are computed at once at most"


def at_length(config: ModelConfig, length: int, name: str = "context_length") -> ModelConfig:
    """Returns the config of the same function on windows of another length.

    Args:
      config: of the model.
      length: tokens of a window.
      name: what error messages call the length.

    Raises:
      UserError: for more tokens than it can compute.
    """
    if length > config.longest:
        raise UserError(f"{name}={length} exceeds {limit(config)}")
    return dataclasses.replace(config, context_length=length)


def params_at_length(config: ModelConfig, params: Any, length: int) -> Any:
    """Returns scanned parameters for `at_length(config, length)`, which compute the same.

    A table of positions or distances loses the rows that are not needed, or repeats its last row,
    which stands for all larger distances.

    Args:
      config: the config that the parameters were made for.
      params: a tree, which may be traced.
      length: tokens of a window.
    """
    table = ENCODINGS[config.position].table
    if table is None or length == config.context_length:
        return params

    def resized(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if path[-1].key != table.name:
            return leaf
        if length < config.context_length:
            return jax.lax.slice_in_dim(leaf, 0, length, axis=table.axis)
        added = [(0, 0)] * leaf.ndim
        added[table.axis] = 0, length - config.context_length
        return jnp.pad(leaf, added, mode="edge")

    return jax.tree_util.tree_map_with_path(resized, params)
