"""Caps logits smoothly (`model.logit_softcap`).

A cap c turns a logit z into c tanh(z / c), as in Gemma 2 (Gemma Team 2024). A cap of 0
stands for no cap, and adds no operation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def capped(logits: jax.Array, cap: float) -> jax.Array:
    """Returns cap tanh(logits / cap) in the dtype of the logits; the logits if the cap is 0."""
    return capped_with_slope(logits, cap)[0] if cap else logits


def capped_with_slope(logits: jax.Array, cap: float) -> tuple[jax.Array, jax.Array | float]:
    """Returns (what `capped` returns, its derivative by the logits in float32; 1.0 without a cap).

    Both are computed in float32.
    """
    if not cap:
        return logits, 1.0
    tanh = jnp.tanh(logits.astype(jnp.float32) / cap)
    return (cap * tanh).astype(logits.dtype), 1 - tanh * tanh
