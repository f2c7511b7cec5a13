"""Computes attention behind a KV cache, over blocks of slots, and only over those that are in use.

Rows of a batch may hold very different numbers of tokens. Softmax is computed online (Milakov and
Gimelshein 2018): a block that a row does not see multiplies what the row has by exp(0) and adds 0.
So a row's result does not depend, to the bit, on how many blocks the other rows make it go through.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.model.attention import MASKED, seen

BLOCK_SLOTS = 128
"""Slots of a block. A cache of another multiple of slots is one block."""


def cached_attention(
    q_BxTxHxK: jax.Array,
    k_BxHxSxK: jax.Array,
    v_BxHxSxK: jax.Array,
    slots_BxT: jax.Array,
    scale: float,
    precision: str | None = None,
    window: int = 0,
    bias_BxHxTxS: jax.Array | None = None,
) -> jax.Array:
    """Returns softmax(scale q k^T) v, where a query in slot s sees the slots 0..s.

    Args:
      q_BxTxHxK, k_BxHxSxK, v_BxHxSxK: queries, and the keys and values of the cache, whose slots
        0..s must have been written; the others may hold anything finite.
      slots_BxT: int32, slot of each query, below S: a larger one is not noticed.
      scale, precision, window, bias_BxHxTxS: see `attention.reference_attention`.

    Returns:
      [B, T, H, K] in the dtype of v.
    """
    (B, T, H, K), S = q_BxTxHxK.shape, k_BxHxSxK.shape[2]
    size = BLOCK_SLOTS if S % BLOCK_SLOTS == 0 else S
    q_BxTxHxK = q_BxTxHxK * scale

    def add_block(i: jax.Array, carry: Any) -> Any:
        largest_BxHxTx1, sums_BxHxTx1, mixed_BxHxTxK = carry

        def of_block(x: jax.Array, axis: int) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis)

        scores_BxHxTxS = jnp.einsum(
            "bthk,bhsk->bhts",
            q_BxTxHxK,
            of_block(k_BxHxSxK, 2),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        if bias_BxHxTxS is not None:
            scores_BxHxTxS += of_block(bias_BxHxTxS, 3)
        slots_S = i * size + jnp.arange(size)
        visible_Bx1xTxS = seen(slots_S, slots_BxT[:, None, :, None], window)
        scores_BxHxTxS = jnp.where(visible_Bx1xTxS, scores_BxHxTxS, MASKED)
        now_BxHxTx1 = jnp.maximum(largest_BxHxTx1, scores_BxHxTxS.max(-1, keepdims=True))
        kept_BxHxTx1 = jnp.exp(largest_BxHxTx1 - now_BxHxTx1)
        weights_BxHxTxS = jnp.exp(scores_BxHxTxS - now_BxHxTx1)
        added_BxHxTxK = jnp.einsum(
            "bhts,bhsk->bhtk",
            weights_BxHxTxS.astype(v_BxHxSxK.dtype),
            of_block(v_BxHxSxK, 2),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        return (
            now_BxHxTx1,
            sums_BxHxTx1 * kept_BxHxTx1 + weights_BxHxTxS.sum(-1, keepdims=True),
            mixed_BxHxTxK * kept_BxHxTx1 + added_BxHxTxK,
        )

    # The first block that a query sees wipes out what blocks before its window have left.
    empty = jnp.full((B, H, T, 1), MASKED, jnp.float32), jnp.zeros((B, H, T, 1), jnp.float32)
    carry = *empty, jnp.zeros((B, H, T, K), jnp.float32)
    if size == S:
        carry = add_block(jnp.int32(0), carry)
    else:
        carry = jax.lax.fori_loop(0, slots_BxT.max() // size + 1, add_block, carry)
    _, sums_BxHxTx1, mixed_BxHxTxK = carry
    return jnp.swapaxes(mixed_BxHxTxK / sums_BxHxTx1, 1, 2).astype(v_BxHxSxK.dtype)
