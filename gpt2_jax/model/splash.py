"""Runs splash attention, JAX's kernel for TPUs, between arrays that need no padding.

A TPU pads the last axis of an array to 128 lanes, so that [B, H, T, K] with heads of width 64 takes
twice its size in memory and time. Here the arrays that outlive the kernels are [B, T, 3 H K] and
[B, T, H K]. The kernels read queries, keys and values with T last, which needs no padding either.

The gradient that comes with the kernel keeps its padded inputs, and writes a part of the queries'
gradient for every block of keys. So the gradient is ours, around the kernel's private backward
pass. pyproject.toml bounds jax for this.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gpt2_jax.model.linear import PRODUCT

LANES = 128  # of a TPU's vector register; the kernels need blocks of a multiple of it

# MaxText's block size for the forward pass, and for queries in both.
_BLOCK = 512
# With as many keys as the context has, the backward pass writes the queries' gradient once, and XLA
# has no parts of it to add. It does not skip the masked half of such a block, which costs less.
_BACKWARD_KEYS = 1024


class _Choices(NamedTuple):
    """Holds what the kernels need besides arrays."""

    num_heads: int
    scale: float
    interpret: bool


def splash_attention(
    q_BxTxHxK: jax.Array,
    k_BxTxHxK: jax.Array,
    v_BxTxHxK: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    interpret: bool = False,
) -> jax.Array:
    """Returns softmax(scale q k^T) v of one device, where a query sees no later slot.

    Args:
      segments_BxT: int32; a query sees only slots of its own segment. None means one segment.
      scale: factor of the scores.
      interpret: whether to compute the kernels as plain operations, on any device.

    Returns:
      [B, T, H, K].
    """
    B, T, H, K = q_BxTxHxK.shape
    # One array, as the layer made it: XLA removes the cut and the concatenation. If they were kept
    # for the backward pass one by one, they would be copied to the layout that the kernels read.
    flat = [x.reshape(B, T, H * K) for x in (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK)]
    qkv_BxTx3D = jnp.concatenate(flat, axis=-1)
    y: Any = _attend(qkv_BxTx3D, segments_BxT, _Choices(H, scale, interpret))
    return y.reshape(B, T, H, K)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend(qkv_BxTx3D, segments_BxT, choices):
    return _forward(qkv_BxTx3D, segments_BxT, choices)[0]


def _forward(qkv_BxTx3D, segments_BxT, choices):
    kernel, _ = _kernel(qkv_BxTx3D.shape[1], choices)
    q, k, v = _scaled_heads(qkv_BxTx3D, choices)
    y_BxHxTxK, (lse_BxHxT,) = jax.vmap(kernel)(q, k, v, _ids(segments_BxT))
    # Two products made them: remat that keeps products does not run the kernel again.
    y_BxTxD = checkpoint_name(_join_heads(y_BxHxTxK), PRODUCT)
    lse_BxHxT = checkpoint_name(lse_BxHxT, PRODUCT)
    return y_BxTxD, (qkv_BxTx3D, segments_BxT, y_BxTxD, lse_BxHxT)


def _backward(choices, residuals, dy_BxTxD):
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    qkv_BxTx3D, segments_BxT, y_BxTxD, lse_BxHxT = residuals
    kernel, sizes = _kernel(qkv_BxTx3D.shape[1], choices)
    backward = functools.partial(
        splash._splash_attention_bwd_dkv,
        bq=sizes.block_q_dkv,
        bkv=sizes.block_kv_dkv,
        bkv_compute=sizes.block_kv_dkv_compute,
        is_mqa=False,
        mask_info=kernel.dkv_mask_info,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        use_fused_bwd_kernel=True,
        q_layout=sizes.q_layout,
        k_layout=sizes.k_layout,
        v_layout=sizes.v_layout,
        mask_function=kernel.kwargs["mask_function"],
        interpret=choices.interpret,
    )

    def of_row(q, k, v, dy, ids, lse, along):
        return backward(q, k, v, ids, None, lse, dy, along)

    q, k, v = _scaled_heads(qkv_BxTx3D, choices)
    dy = _split_heads(dy_BxTxD, choices)
    along_BxHxT = _sums_of_heads(y_BxTxD, dy_BxTxD, choices)
    gradients: Any = jax.vmap(of_row)(q, k, v, dy, _ids(segments_BxT), lse_BxHxT, along_BxHxT)
    dq, dk, dv = map(_join_heads, gradients)
    return jnp.concatenate([dq * choices.scale, dk, dv], axis=-1), None


_attend.defvjp(_forward, _backward)


def _kernel(length: int, choices: _Choices) -> tuple[Any, Any]:
    """Returns (the forward kernel for one sequence, the sizes of its blocks)."""
    # Imported here, because Pallas takes half a second to import.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    block = splash_block(length)
    length_last = splash_attention_kernel.QKVLayout.SEQ_MINOR
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=_largest_block(length, _BACKWARD_KEYS),
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
        q_layout=length_last,
        k_layout=length_last,
        v_layout=length_last,
    )
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.CausalMask((length, length))] * choices.num_heads),
        block_sizes=sizes,
        save_residuals=True,
        interpret=choices.interpret,
    )
    return kernel, sizes


def splash_block(context_length: int) -> int:
    """Returns the queries of a block of scores, and its keys in the forward pass."""
    return _largest_block(context_length, _BLOCK)


def _largest_block(length: int, most: int) -> int:
    """Returns the largest block size up to `most` that divides the length."""
    return next(size for size in (1024, 512, 256, LANES) if size <= most and length % size == 0)


def _ids(segments_BxT: jax.Array | None) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    return None if segments_BxT is None else splash.SegmentIds(segments_BxT, segments_BxT)


def _scaled_heads(qkv_BxTx3D: jax.Array, choices: _Choices) -> tuple[jax.Array, ...]:
    """Returns scaled queries, keys and values [B, H, T, K]."""
    q_BxTxD, k_BxTxD, v_BxTxD = jnp.split(qkv_BxTx3D, 3, axis=-1)
    return tuple(_split_heads(x, choices) for x in (q_BxTxD * choices.scale, k_BxTxD, v_BxTxD))


def _split_heads(x_BxTxD: jax.Array, choices: _Choices) -> jax.Array:
    """Returns [B, H, T, K]."""
    B, T, _ = x_BxTxD.shape
    return jnp.swapaxes(x_BxTxD.reshape(B, T, choices.num_heads, -1), 1, 2)


def _join_heads(x_BxHxTxK: jax.Array) -> jax.Array:
    """Returns [B, T, H K]."""
    B, _, T, _ = x_BxHxTxK.shape
    return jnp.swapaxes(x_BxHxTxK, 1, 2).reshape(B, T, -1)


def _sums_of_heads(x_BxTxD: jax.Array, y_BxTxD: jax.Array, choices: _Choices) -> jax.Array:
    """Returns the sum of x y over each head, [B, H, T] in float32.

    As a product with a matrix of 0 and 1, because a sum over K would need padded arrays.
    """
    D = x_BxTxD.shape[-1]
    members_DxH = jnp.arange(D)[:, None] // (D // choices.num_heads) == jnp.arange(
        choices.num_heads
    )
    return jnp.einsum(
        "btd,dh->bht",
        x_BxTxD.astype(jnp.float32) * y_BxTxD.astype(jnp.float32),
        members_DxH.astype(jnp.float32),
        # Products of bfloat16 numbers have 16 bits, of which "high" keeps all. In float32, the
        # precision is the one in force, as in the kernels.
        precision=None if x_BxTxD.dtype == "float32" else "high",
    )
