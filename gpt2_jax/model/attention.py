"""Causal attention, by a readable reference and by fused kernels, with and without a cache.

One rule masks every case: a query in slot s sees the slots 0..s. So it holds for whole sequences,
for ragged prompts and for one token after a cache of thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.layout import on_each_device

# Finite, so that no softmax row is ever all -inf; within the range of bfloat16 and float32.
_MASKED = -1e30

Dropout = Callable[[jax.Array], jax.Array]


def reference_attention(
    q_BxTxHxK: jax.Array,
    k_BxSxHxK: jax.Array,
    v_BxSxHxK: jax.Array,
    slots_BxT: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    dropout: Dropout,
) -> tuple[jax.Array, jax.Array]:
    """softmax(scale q k^T) v, scores and softmax in float32 (Vaswani et al. 2017, 3.2.1).

    Args:
      slots_BxT: slot of each query; it sees slots 0..slot. Leading axis B or 1.
      segments_BxT: int32; a query sees the slots of its own number only. None: all are of one.
      scale: 1 / sqrt(K) in GPT-2.
      dropout: applied to the attention probabilities.

    Returns:
      ([B, T, H, K] in the dtype of v, the probabilities [B, H, T, S] in float32 before dropout).
    """
    scores_BxHxTxS = jnp.einsum(
        "bthk,bshk->bhts", q_BxTxHxK * scale, k_BxSxHxK, preferred_element_type=jnp.float32
    )
    slots_S = jnp.arange(k_BxSxHxK.shape[1])
    seen_Bx1xTxS = slots_S <= slots_BxT[:, None, :, None]
    if segments_BxT is not None:
        seen_Bx1xTxS &= (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
    probs_BxHxTxS = jax.nn.softmax(jnp.where(seen_Bx1xTxS, scores_BxHxTxS, _MASKED), axis=-1)
    dropped_BxHxTxS = dropout(probs_BxHxTxS).astype(v_BxSxHxK.dtype)
    return jnp.einsum("bhts,bshk->bthk", dropped_BxHxTxS, v_BxSxHxK), probs_BxHxTxS


def fused_attention(
    q_BxTxHxK: jax.Array,
    k_BxTxHxK: jax.Array,
    v_BxTxHxK: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    kernel: str,
) -> jax.Array:
    """The same for whole sequences by a kernel that never holds the scores, and cannot show them.

    XLA cannot divide such a kernel over devices: each runs it on its own rows and heads.

    Args:
      segments_BxT: int32; a query sees the slots of its own number only. None: all are of one.
      kernel: "cudnn" or "splash".

    Returns:
      [B, T, H, K].
    """
    heads = ("batch", "length", "act_heads", "head_dim")
    arrays, axes = [q_BxTxHxK, k_BxTxHxK, v_BxTxHxK], [heads] * 3
    if segments_BxT is not None:
        arrays, axes = [*arrays, segments_BxT], [*axes, ("batch", "length")]

    def program(q, k, v, segments=None):
        return (_KERNELS[kernel](q, k, v, segments, scale),)

    return on_each_device(program, axes, (heads,))(*arrays)[0]


def _cudnn(q, k, v, segments, scale):
    mask = None if segments is None else (segments[:, :, None] == segments[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=scale, is_causal=True, implementation="cudnn"
    )


def _splash(q, k, v, segments, scale, interpret=False):
    """Splash attention, JAX's kernel for TPUs: causal blocks that are all masked are left out."""
    # Here and not above: Pallas takes half a second to import.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    T, H = q.shape[1:3]
    # The largest of MaxText's block sizes; the same for all of its passes.
    block = next(size for size in (512, 256, _LANES) if T % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    kernel: Any = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.CausalMask((T, T))] * H),
        block_sizes=sizes,
        interpret=interpret,
    )
    ids = None if segments is None else splash.SegmentIds(segments, segments)
    q_BxHxTxK, k_BxHxTxK, v_BxHxTxK = (jnp.swapaxes(x, 1, 2) for x in (q * scale, k, v))
    return jnp.swapaxes(jax.vmap(kernel)(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, ids), 1, 2)


_LANES = 128  # of a TPU's vector registers: splash takes blocks of as many tokens
_KERNELS = {"cudnn": _cudnn, "splash": _splash}


def choose(config: ModelConfig) -> str:
    """The kernel that `model.attention` means: "splash", "cudnn" or "reference".

    Where a mesh is in force its devices count, else those that JAX would use.

    Raises:
      UserError: if a kernel is asked for by name where it can't compute this model.
    """
    if config.attention == "reference":
        return "reference"
    missing = {
        kernel: [reason for reason, holds in needs(config).items() if not holds]
        for kernel, needs in (("splash", _splash_needs), ("cudnn", _cudnn_needs))
    }
    if config.attention == "auto":
        return next((kernel for kernel, reasons in missing.items() if not reasons), "reference")
    if reasons := missing[config.attention]:
        raise UserError(f"model.attention={config.attention} {reasons[0]}; use auto or reference")
    return config.attention


def _cudnn_needs(config: ModelConfig) -> dict[str, bool]:
    return {
        "needs a GPU of compute capability 8.0 or more": _compute_capability() >= 8,
        "needs model.dtype=bfloat16": config.dtype == "bfloat16",
        "needs a head width that is a multiple of 8 up to 128": config.head_dim % 8 == 0
        and config.head_dim <= 128,
        "needs model.dropout=0": config.dropout == 0,
    }


def _splash_needs(config: ModelConfig) -> dict[str, bool]:
    return {
        "needs a TPU": _platform() == "tpu",
        f"needs a context_length that is a multiple of {_LANES}": config.context_length % _LANES
        == 0,
        "needs model.dropout=0": config.dropout == 0,
    }


def _platform() -> str:
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def _compute_capability() -> float:
    """The least of the GPUs'; 0 where there is none."""
    if jax.default_backend() != "gpu" or _platform() == "tpu":
        return 0.0
    return min(float(getattr(gpu, "compute_capability", 0)) for gpu in jax.local_devices())
