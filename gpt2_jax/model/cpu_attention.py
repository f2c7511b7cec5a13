"""Computes causal attention for CPUs: plain operations with a gradient of their own.

It stores the exponentials of the scores and divides by their sums after the product with v, which
has fewer elements; the backward pass then reads the exponentials once. Autodiff of the softmax
would store the probabilities, and read and write them several times.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.model.attention import MASKED, seen


def cpu_attention(
    q_BxTxHxK: jax.Array,
    k_BxTxHxK: jax.Array,
    v_BxTxHxK: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    window: int = 0,
) -> jax.Array:
    """Returns softmax(scale q k^T) v, [B, T, H, K]; see `attention_kernels.fused_attention`."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxTxHxK * scale, k_BxTxHxK, v_BxTxHxK))
    return jnp.swapaxes(_attend(q, k, v, segments_BxT, window), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, segments_BxT, window):
    return _forward(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, segments_BxT, window)[0]


def _forward(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, segments_BxT, window):
    scores_BxHxTxS = _product("bhtk,bhsk->bhts", q_BxHxTxK, k_BxHxTxK)
    slots_T = jnp.arange(q_BxHxTxK.shape[2])
    visible = seen(slots_T, slots_T[:, None], window)
    if segments_BxT is not None:
        visible &= (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
    scores_BxHxTxS = jnp.where(visible, scores_BxHxTxS, MASKED)
    largest_BxHxTx1 = scores_BxHxTxS.max(-1, keepdims=True)
    exps_BxHxTxS = jnp.exp(scores_BxHxTxS - largest_BxHxTx1)
    inverse_BxHxTx1 = 1 / exps_BxHxTxS.sum(-1, keepdims=True)
    exps_BxHxTxS = exps_BxHxTxS.astype(v_BxHxTxK.dtype)
    mixed_BxHxTxK = _product("bhts,bhsk->bhtk", exps_BxHxTxS, v_BxHxTxK) * inverse_BxHxTx1
    y_BxHxTxK = mixed_BxHxTxK.astype(v_BxHxTxK.dtype)
    return y_BxHxTxK, (q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, exps_BxHxTxS, inverse_BxHxTx1, y_BxHxTxK)


def _backward(window: int, residuals: Any, dy_BxHxTxK: jax.Array):
    q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, exps_BxHxTxS, inverse_BxHxTx1, y_BxHxTxK = residuals
    dtype = v_BxHxTxK.dtype
    divided_BxHxTxK = dy_BxHxTxK * inverse_BxHxTx1
    shift_BxHxTx1 = (divided_BxHxTxK * y_BxHxTxK).sum(-1, keepdims=True)
    divided_BxHxTxK = divided_BxHxTxK.astype(dtype)
    dv_BxHxTxK = _product("bhts,bhtk->bhsk", exps_BxHxTxS, divided_BxHxTxK)
    d_probs_BxHxTxS = _product("bhtk,bhsk->bhts", divided_BxHxTxK, v_BxHxTxK)
    d_scores_BxHxTxS = (exps_BxHxTxS * (d_probs_BxHxTxS - shift_BxHxTx1)).astype(dtype)
    dq_BxHxTxK = _product("bhts,bhsk->bhtk", d_scores_BxHxTxS, k_BxHxTxK)
    dk_BxHxTxK = _product("bhts,bhtk->bhsk", d_scores_BxHxTxS, q_BxHxTxK)
    return *(x.astype(dtype) for x in (dq_BxHxTxK, dk_BxHxTxK, dv_BxHxTxK)), None


_attend.defvjp(_forward, _backward)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
