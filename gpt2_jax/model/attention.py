"""Computes causal attention, by a readable reference or by fused kernels.

One rule masks every case: a query in slot s sees the slots 0..s. It covers whole sequences, ragged
prompts and a single token behind a cache of thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.layout import on_each_device

# Finite, so that no softmax row is ever all -inf; within the range of bfloat16 and float32.
_MASKED = -1e30
_LANES = 128  # of a TPU's vector register; splash needs blocks of a multiple of it

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
) -> tuple[jax.Array, jax.Array]:
    """Returns softmax(scale q k^T) v, with scores and softmax in float32 (Vaswani et al. 2017).

    Args:
      slots_BxT: slot of each query, which sees the slots 0..slot; the leading axis is B or 1.
      segments_BxT: int32; a query sees only slots of its own segment. None means one segment.
      scale: factor of the scores, 1 / sqrt(K) in GPT-2.
      dropout: applied to the attention probabilities.
      precision: precision of both products; see `ComputeConfig.matmul_precision`.

    Returns:
      ([B, T, H, K] in the dtype of v, the probabilities [B, H, T, S] in float32 before dropout).
    """
    scores_BxHxTxS = jnp.einsum(
        "bthk,bshk->bhts",
        q_BxTxHxK * scale,
        k_BxSxHxK,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    slots_S = jnp.arange(k_BxSxHxK.shape[1])
    seen_Bx1xTxS = slots_S <= slots_BxT[:, None, :, None]
    if segments_BxT is not None:
        seen_Bx1xTxS &= (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
    probs_BxHxTxS = jax.nn.softmax(jnp.where(seen_Bx1xTxS, scores_BxHxTxS, _MASKED), axis=-1)
    dropped_BxHxTxS = dropout(probs_BxHxTxS).astype(v_BxSxHxK.dtype)
    mixed_BxTxHxK = jnp.einsum("bhts,bshk->bthk", dropped_BxHxTxS, v_BxSxHxK, precision=precision)
    return mixed_BxTxHxK, probs_BxHxTxS


def fused_attention(
    q_BxTxHxK: jax.Array,
    k_BxTxHxK: jax.Array,
    v_BxTxHxK: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    kernel: str,
) -> jax.Array:
    """Returns the same for whole sequences, by a kernel that never stores the scores.

    XLA cannot divide such a kernel over devices, so each device runs it on its own rows and heads.

    Args:
      segments_BxT: int32; a query sees only slots of its own segment. None means one segment.
      kernel: "cudnn" or "splash".

    Returns:
      [B, T, H, K].
    """
    heads = ("batch", "length", "act_heads", "head_dim")
    arrays, axes = [q_BxTxHxK, k_BxTxHxK, v_BxTxHxK], [heads] * 3
    if segments_BxT is not None:
        arrays, axes = [*arrays, segments_BxT], [*axes, ("batch", "length")]

    def program(q, k, v, segments=None):
        return (_KERNELS[kernel].attend(q, k, v, segments, scale),)

    return on_each_device(program, axes, (heads,))(*arrays)[0]


def _cudnn(q, k, v, segments, scale):
    mask = None if segments is None else (segments[:, :, None] == segments[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=scale, is_causal=True, implementation="cudnn"
    )


def _splash(q, k, v, segments, scale, interpret=False):
    """Runs splash attention, JAX's kernel for TPUs, which skips fully masked blocks."""
    # Imported here, because Pallas takes half a second to import.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    T, H = q.shape[1:3]
    # The largest of MaxText's block sizes that divides T, for all passes.
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


def _cudnn_needs(model: ModelConfig, compute: ComputeConfig) -> dict[str, bool]:
    width = model.head_dim
    return {
        "a GPU of compute capability 8.0 or more": _compute_capability() >= 8,
        "compute.dtype=bfloat16": compute.dtype == "bfloat16",
        "a head width that is a multiple of 8 up to 128": width % 8 == 0 and width <= 128,
        "model.dropout=0": model.dropout == 0,
    }


def _splash_needs(model: ModelConfig, compute: ComputeConfig) -> dict[str, bool]:
    return {
        "a TPU": _platform() == "tpu",
        f"a context_length that is a multiple of {_LANES}": model.context_length % _LANES == 0,
        "model.dropout=0": model.dropout == 0,
    }


class _Kernel(NamedTuple):
    """Describes a kernel: how it computes, and what of a model and device it needs."""

    attend: Callable[..., jax.Array]
    needs: Callable[[ModelConfig, ComputeConfig], dict[str, bool]]


# In the order in which `compute.attention=auto` tries them.
_KERNELS = {
    "splash": _Kernel(_splash, _splash_needs),
    "cudnn": _Kernel(_cudnn, _cudnn_needs),
}


def choose(model: ModelConfig, compute: ComputeConfig) -> str:
    """Returns the kernel that `compute.attention` selects: "splash", "cudnn" or "reference".

    Considers the devices of the mesh in force, or without a mesh, those that JAX would use.

    Raises:
      UserError: if the config names a kernel that cannot compute this model on these devices.
    """
    if compute.attention == "reference":
        return "reference"
    missing = {
        name: [need for need, is_met in kernel.needs(model, compute).items() if not is_met]
        for name, kernel in _KERNELS.items()
    }
    if compute.attention == "auto":
        return next((name for name, needs in missing.items() if not needs), "reference")
    if needs := missing[compute.attention]:
        raise UserError(
            f"compute.attention={compute.attention} needs {needs[0]}; use auto or reference"
        )
    return compute.attention


def _platform() -> str:
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def _compute_capability() -> float:
    """Returns the lowest compute capability of the local GPUs; 0 without a GPU."""
    if jax.default_backend() != "gpu" or _platform() == "tpu":
        return 0.0
    return min(float(getattr(gpu, "compute_capability", 0)) for gpu in jax.local_devices())
