"""Causal attention, by a readable reference and by fused kernels, with and without a cache.

One rule masks every case: a query at position p sees the slots 0..p. Slot and position are the same
number, so the rule holds for whole sequences, for ragged prompts and for one token after a cache of
thousands.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError

# Finite, so that no softmax row is ever all -inf; within the range of bfloat16 and float32.
_MASKED = -1e30

Dropout = Callable[[jax.Array], jax.Array]


def reference_attention(
    q_BxTxHxK: jax.Array,
    k_BxSxHxK: jax.Array,
    v_BxSxHxK: jax.Array,
    positions_BxT: jax.Array,
    scale: float,
    dropout: Dropout,
) -> tuple[jax.Array, jax.Array]:
    """softmax(scale q k^T) v, scores and softmax in float32 (Vaswani et al. 2017, 3.2.1).

    Args:
      positions_BxT: position of each query; it sees slots 0..position. Leading axis B or 1.
      scale: 1 / sqrt(K) in GPT-2.
      dropout: applied to the attention probabilities.

    Returns:
      ([B, T, H, K] in the dtype of v, the probabilities [B, H, T, S] in float32 before dropout).
    """
    scores_BxHxTxS = jnp.einsum(
        "bthk,bshk->bhts", q_BxTxHxK * scale, k_BxSxHxK, preferred_element_type=jnp.float32
    )
    slots_S = jnp.arange(k_BxSxHxK.shape[1])
    seen_Bx1xTxS = slots_S <= positions_BxT[:, None, :, None]
    probs_BxHxTxS = jax.nn.softmax(jnp.where(seen_Bx1xTxS, scores_BxHxTxS, _MASKED), axis=-1)
    dropped_BxHxTxS = dropout(probs_BxHxTxS).astype(v_BxSxHxK.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropped_BxHxTxS, v_BxSxHxK), probs_BxHxTxS


def cudnn_attention(
    q_BxTxHxK: jax.Array, k_BxTxHxK: jax.Array, v_BxTxHxK: jax.Array, scale: float
) -> jax.Array:
    """The same for whole sequences by cuDNN: bfloat16, no dropout, no probabilities to see.

    Returns:
      [B, T, H, K].
    """
    return jax.nn.dot_product_attention(
        q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, scale=scale, is_causal=True, implementation="cudnn"
    )


def choose(config: ModelConfig) -> str:
    """The kernel that `model.attention` means on these devices: "cudnn" or "reference".

    Raises:
      UserError: if cuDNN is asked for where it can't compute this model.
    """
    if config.attention == "reference":
        return "reference"
    reasons = {
        "needs a GPU of compute capability 8.0 or more": _compute_capability() >= 8,
        "needs model.dtype=bfloat16": config.dtype == "bfloat16",
        "needs a head width that is a multiple of 8 up to 128": config.head_dim % 8 == 0
        and config.head_dim <= 128,
        "needs model.dropout=0": config.dropout == 0,
    }
    missing = [reason for reason, holds in reasons.items() if not holds]
    if missing and config.attention == "cudnn":
        raise UserError(f"model.attention=cudnn {missing[0]}; use auto or reference")
    return "reference" if missing else "cudnn"


def _compute_capability() -> float:
    """The least of the GPUs'; 0 where there is none."""
    if jax.default_backend() != "gpu":
        return 0.0
    return min(float(getattr(gpu, "compute_capability", 0)) for gpu in jax.local_devices())
