"""The norms of a step's gradient by parameter and layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def squares_by_layer(grads: Any) -> dict[str, jax.Array]:
    """Returns sums of squares by parameter name: [L] for stacked layers, and scalars otherwise."""
    squares = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = tuple(range(1, leaf.ndim)) if name.startswith("h/") else None
        squares[name] = jnp.sum(jnp.square(leaf), axis=axes)
    return squares


def norms_by_name(norms: Mapping[str, Any]) -> dict[str, float]:
    """Returns {`name` or `name/layer`: norm} of a step's `grad_norms`, scalars and [L] arrays."""
    named: dict[str, float] = {}
    for name, value in norms.items():
        array = np.asarray(value)
        if array.ndim == 0:
            named[name] = float(array)
        else:
            named |= {f"{name.removeprefix('h/')}/{i}": float(x) for i, x in enumerate(array)}
    return named
