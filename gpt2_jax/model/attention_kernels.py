"""Computes causal attention by a kernel for the kind of device, and chooses among the kernels.

Those for TPUs and GPUs never store the scores, and that for CPUs stores them once. They compute
what `attention.reference_attention` does, for whole sequences and without dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.cpu_attention import cpu_attention
from gpt2_jax.model.layout import on_each_device
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.model.splash import LANES, splash_attention
from gpt2_jax.parallel.platforms import platform_of

_CUDNN_CAPABILITY = 8  # the least of a GPU

Attend = Callable[..., jax.Array]
_CPU = "a CPU"


def fused_attention(
    q_BxTxHxK: jax.Array,
    k_BxTxHxK: jax.Array,
    v_BxTxHxK: jax.Array,
    segments_BxT: jax.Array | None,
    scale: float,
    kernel: str,
    precision: str | None = None,
    window: int = 0,
) -> jax.Array:
    """Returns softmax(scale q k^T) v for whole sequences, where a query sees no later slot.

    XLA cannot divide such a kernel over devices, so each device runs it on its own rows and heads.

    Args:
      segments_BxT: int32; a query sees only slots of its own segment. None means one segment.
      scale: factor of the scores, 1 / sqrt(K) in GPT-2.
      kernel: "splash", "cudnn" or "cpu".
      precision: precision of the products; see `ComputeConfig.matmul_precision`.
      window: how many slots a query sees, its own the last of them; 0 means all up to its own.

    Returns:
      [B, T, H, K].
    """
    heads = ("batch", "length", "act_heads", "head_dim")
    arrays, axes = [q_BxTxHxK, k_BxTxHxK, v_BxTxHxK], [heads] * 3
    if segments_BxT is not None:
        arrays, axes = [*arrays, segments_BxT], [*axes, ("batch", "length")]
    # Products of bfloat16 inputs are exact, so no precision makes them more so.
    precision = precision if q_BxTxHxK.dtype == "float32" else None

    windows = {"window": window} if window else {}  # only kernels that take one are chosen then

    def program(q, k, v, segments=None):
        def attend(q, k, v, segments):
            return _KERNELS[kernel].attend(q, k, v, segments, scale, **windows)

        return (_at_precision(attend, precision)(q, k, v, segments),)

    return on_each_device(program, axes, (heads,))(*arrays)[0]


def _at_precision(attend: Attend, precision: str | None) -> Attend:
    """Returns attend(q, k, v, segments) with products of a precision, forward and backward.

    A kernel whose products name no precision uses the one in force while it is traced. Its backward
    pass is traced later, when a context around the call has ended.
    """
    if precision is None:
        return attend

    @jax.custom_vjp
    def precise(q, k, v, segments):
        with jax.default_matmul_precision(precision):
            return attend(q, k, v, segments)

    def forward(q, k, v, segments):
        with jax.default_matmul_precision(precision):
            return jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)

    def backward(pull_back, dy):
        with jax.default_matmul_precision(precision):
            return *pull_back(dy), None

    precise.defvjp(forward, backward)
    return precise


def _cudnn(q, k, v, segments, scale):
    mask = None if segments is None else (segments[:, :, None] == segments[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=scale, is_causal=True, implementation="cudnn"
    )


def _plain_scores(model: ModelConfig) -> dict[str, bool]:
    """Returns what every kernel needs of what happens to the scores."""
    return {
        "model.dropout=0": model.dropout == 0,
        f"a model.position that adds nothing to scores, unlike {model.position}": (
            ENCODINGS[model.position].score_bias is None
        ),
    }


def _cudnn_needs(model: ModelConfig, compute: ComputeConfig) -> dict[str, bool]:
    width = model.head_dim
    return {
        "a GPU of compute capability 8.0 or more": _compute_capability() >= _CUDNN_CAPABILITY,
        "compute.dtype=bfloat16": compute.dtype == "bfloat16",
        "a head width that is a multiple of 8 up to 128": width % 8 == 0 and width <= 128,
        **_plain_scores(model),
        "model.attention_window=0": model.attention_window == 0,
        "compute.plain=false": not compute.plain,
    }


def _splash_needs(model: ModelConfig, compute: ComputeConfig) -> dict[str, bool]:
    inexact = compute.dtype == "float32" and compute.matmul_precision == "high"
    return {
        "a TPU": platform_of() == "tpu",
        f"a context_length that is a multiple of {LANES}": model.context_length % LANES == 0,
        **_plain_scores(model),
        "model.attention_window=0": model.attention_window == 0,
        "compute.precision=highest or default for float32": not inexact,
        "compute.plain=false": not compute.plain,
    }


def _cpu_needs(model: ModelConfig, compute: ComputeConfig) -> dict[str, bool]:
    return {
        _CPU: platform_of() == "cpu",
        **_plain_scores(model),
        "compute.plain=false": not compute.plain,
    }


class _Kernel(NamedTuple):
    """Describes a kernel: how it computes, and what of a model and device it needs."""

    attend: Attend
    needs: Callable[[ModelConfig, ComputeConfig], dict[str, bool]]


# In the order in which `compute.attention=auto` tries them.
_KERNELS = {
    "splash": _Kernel(splash_attention, _splash_needs),
    "cudnn": _Kernel(_cudnn, _cudnn_needs),
    "cpu": _Kernel(cpu_attention, _cpu_needs),
}


def choose(model: ModelConfig, compute: ComputeConfig) -> str:
    """Returns the kernel that `compute.attention` selects: "splash", "cudnn", "cpu" or "reference".

    Considers the devices of the mesh in force, or without a mesh, those that JAX would use.

    Raises:
      UserError: if the config names a kernel that cannot compute this model on these devices.
    """
    if compute.attention == "reference":
        return "reference"
    missing = _missing(model, compute)
    best = next((name for name, needs in missing.items() if not needs), "reference")
    if compute.attention == "auto":
        return best
    if needs := missing[compute.attention]:
        rest = "" if best == "reference" else ", or reference"
        raise UserError(
            f"compute.attention={compute.attention} needs {needs[0]}; use auto, which takes {best} "
            f"here{rest}"
        )
    return compute.attention


def choose_on(model: ModelConfig, compute: ComputeConfig, capability: float | None) -> str:
    """Returns the kernel that `compute.attention` selects on devices that need not be there.

    Args:
      model, compute: sections of the config.
      capability: compute capability of the GPUs; None for TPUs.
    """
    name = "splash" if capability is None else "cudnn"
    _, *others = _KERNELS[name].needs(model, compute).values()  # without the device
    has_device = capability is None or capability >= _CUDNN_CAPABILITY
    runs = compute.attention in ("auto", name) and has_device and all(others)
    return name if runs else "reference"


def explain(model: ModelConfig, compute: ComputeConfig) -> str:
    """Returns the kernel that is chosen and, for the reference, what each other one lacks.

    For example "reference (splash needs a TPU; cudnn needs model.dropout=0)".

    Raises:
      UserError: as `choose` does.
    """
    kernel = choose(model, compute)
    if kernel != "reference" or compute.attention == "reference":
        return f"{kernel} (compute.attention={compute.attention})"
    lacks = [
        f"{name} needs {' and '.join(needs)}"
        for name, needs in _missing(model, compute).items()
        if needs != [_CPU]  # nobody expects the kernel for CPUs elsewhere
    ]
    return f"reference ({'; '.join(lacks)})"


def _missing(model: ModelConfig, compute: ComputeConfig) -> dict[str, list[str]]:
    """Returns {kernel: what it needs and does not have}; where its device is missing, only that."""
    missing = {}
    for name, kernel in _KERNELS.items():
        device, *others = kernel.needs(model, compute).items()
        unmet = [need for need, is_met in others if not is_met]
        missing[name] = unmet if device[1] else [device[0]]
    return missing


def _compute_capability() -> float:
    """Returns the lowest compute capability of the local GPUs; 0 without a GPU."""
    if jax.default_backend() != "gpu" or platform_of() == "tpu":
        return 0.0
    return min(float(getattr(gpu, "compute_capability", 0)) for gpu in jax.local_devices())
