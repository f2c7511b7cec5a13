"""Converts trees of parameters: stacked or unrolled layers, and the compute dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def output_table(params: Mapping[str, Any]) -> jax.Array:
    """Returns the output matrix [V, D]: the token embedding, unless the model is untied."""
    return params.get("lm_head", params["wte"])


def unstack(params: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    """Returns scanned parameters (`h` with leading L axes) as unrolled ones (`h_0`, `h_1`, ...)."""
    layers = {
        f"h_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["h"]) for i in range(num_layers)
    }
    return {name: leaf for name, leaf in params.items() if name != "h"} | layers


def stack(params: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    """Returns unrolled parameters as scanned ones: the inverse of `unstack`."""
    layers = [params[f"h_{i}"] for i in range(num_layers)]
    others = {name: leaf for name, leaf in params.items() if not name.startswith("h_")}
    return others | {"h": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def cast(params: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Returns the parameters in the compute dtype, so that no step has to cast them.

    Norms stay float32, because they compute in float32 whatever the compute dtype is.
    """

    def cast_leaf(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        is_norm = any(str(entry.key).startswith("ln_") for entry in path)
        return leaf if is_norm else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast_leaf, params)
