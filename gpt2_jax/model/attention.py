"""Computes causal attention in plain operations: the reference for every kernel.

One rule masks every case: a query in slot s sees the slots 0..s, or the last of them if there is a
window. It covers whole sequences, ragged
prompts and a single token behind a cache of thousands. `attention_kernels.py` has the fused kernels
and the choice among them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.layout import constrain
from gpt2_jax.model.taps import Tap, untapped

MASKED = -1e30
"""The score of a slot that is not seen: finite, so that no row of a softmax is ever all -inf."""

Dropout = Callable[[jax.Array], jax.Array]


def reference_attention(
    q_BxTxHxK: jax.Array,
    k_BxSxHxK: jax.Array,
    v_BxSxHxK: jax.Array,
    slots_BxT: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    dropout: Dropout,
    precision: str | None = None,
    window: int = 0,
    bias_BxHxTxS: jax.Array | None = None,
    tap: Tap = untapped,
) -> jax.Array:
    """Returns softmax(scale q k^T) v, with scores and softmax in float32 (Vaswani et al. 2017).

    The result is [B, T, H, K] in the dtype of v.

    Args:
      slots_BxT: slot of each query, which sees the slots 0..slot; the leading axis is B or 1.
      segments_BxT: int32; a query sees only slots of its own segment. None means one segment.
      scale: factor of the scores, 1 / sqrt(K) in GPT-2.
      dropout: applied to the attention probabilities.
      precision: precision of both products; see `ComputeConfig.matmul_precision`.
      window: how many slots a query sees, its own the last of them; 0 means all up to its own.
      bias_BxHxTxS: added to the scaled scores; None adds nothing.
      tap: is shown "scores" [B, H, T, S] before the mask, "seen" [B or 1, 1, T, S], and "pattern",
        the probabilities [B, H, T, S] before dropout.
    """
    scores_BxHxTxS = jnp.einsum(
        "bthk,bshk->bhts",
        q_BxTxHxK * scale,
        k_BxSxHxK,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    if bias_BxHxTxS is not None:
        scores_BxHxTxS += bias_BxHxTxS
    scores_BxHxTxS = tap("scores", scores_BxHxTxS)
    seen_Bx1xTxS = seen(jnp.arange(k_BxSxHxK.shape[1]), slots_BxT[:, None, :, None], window)
    if segments_BxT is not None:
        seen_Bx1xTxS &= (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
    seen_Bx1xTxS = tap("seen", seen_Bx1xTxS)
    probs_BxHxTxS = jax.nn.softmax(jnp.where(seen_Bx1xTxS, scores_BxHxTxS, MASKED), axis=-1)
    probs_BxHxTxS = tap("pattern", probs_BxHxTxS)
    dropped_BxHxTxS = dropout(probs_BxHxTxS).astype(v_BxSxHxK.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropped_BxHxTxS, v_BxSxHxK, precision=precision)


def seen(slots_S: jax.Array, slots_Tx1: jax.Array, window: int) -> jax.Array:
    """Returns which slots S each query sees, booleans [..., T, S].

    Args:
      slots_S: all slots.
      slots_Tx1: slot of each query, [..., T, 1].
      window: see `reference_attention`.
    """
    seen_TxS = slots_S <= slots_Tx1
    return seen_TxS & (slots_S > slots_Tx1 - window) if window else seen_TxS


def split_qkv(qkv: jax.Array, num_heads: int) -> tuple[jax.Array, ...]:
    """Returns queries, keys and values [B, T, H, K] of [B, T, 3, H, K] or [B, T, 3 H K]."""
    if qkv.ndim == 5:
        axes = ("batch", "length", None, "act_heads", "head_dim")
        return tuple(jnp.moveaxis(constrain(qkv, axes), 2, 0))
    parts = jnp.split(constrain(qkv, ("batch", "length", None)), 3, axis=-1)
    return tuple(part.reshape(*part.shape[:2], num_heads, -1) for part in parts)


def layer_scales(config: ModelConfig) -> jax.Array | None:
    """Returns the factor of each layer's queries, [L]: 1 / (i + 1) for layer i; None if unused.

    The Mistral GPT-2 runs of Stanford CRFM used it; the knob has the name of Hugging Face's config.
    """
    if not config.scale_attn_by_inverse_layer_idx:
        return None
    return 1 / jnp.arange(1, config.num_layers + 1, dtype=jnp.float32)
