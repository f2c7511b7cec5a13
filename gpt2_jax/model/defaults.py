"""Chooses what unset knobs of `compute` stand for, by the platform, the model and the batch."""

from __future__ import annotations

import dataclasses
import math

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.parallel.cpu import MULTIPLY_BFLOAT16, multiplies_bfloat16, vector_instructions
from gpt2_jax.parallel.mesh import divisors
from gpt2_jax.parallel.platforms import platform_of

# With more layers, a program that is unrolled takes minutes to compile.
_UNROLLED = 12
# Rows of logits that a TPU computes at a time: enough to keep its matrix units busy.
_ROWS_ON_TPU = 1024
# Positions whose logits other devices compute at a time, in every sequence.
_POSITIONS = 128


def with_dtype(compute: ComputeConfig, platform: str | None = None) -> ComputeConfig:
    """Returns the knobs with `dtype=auto` replaced by what the devices compute fastest.

    That is bfloat16 on TPUs and GPUs. CPUs compute float32 faster than bfloat16, but some multiply
    factors in bfloat16 faster: on these, an unset `precision` becomes bfloat16.

    Args:
      compute: the knobs.
      platform: the platform of the devices; by default of those in force, see `platform_of`.
    """
    if compute.dtype != "auto":
        return compute
    if (platform or platform_of()) != "cpu":
        return dataclasses.replace(compute, dtype="bfloat16")
    precision = compute.precision or ("bfloat16" if multiplies_bfloat16() else None)
    return dataclasses.replace(compute, dtype="float32", precision=precision)


def explain_dtype(compute: ComputeConfig, platform: str | None = None) -> str:
    """Returns the dtype and precision in words and, for `dtype=auto`, why they are chosen.

    For example "float32, factors of products rounded to bfloat16 (compute.dtype=auto: this CPU has
    avx512_bf16)".

    Args:
      compute: the knobs, before `with_dtype`.
      platform: as `with_dtype` takes it.
    """
    platform = platform or platform_of()
    chosen = with_dtype(compute, platform)
    text = chosen.dtype
    if chosen.matmul_precision == "bfloat16":
        text += ", factors of products rounded to bfloat16"
    elif chosen.precision is not None:
        text += f", products in precision {chosen.precision}"
    if compute.dtype != "auto":
        return f"{text} (compute.dtype={compute.dtype})"
    if platform != "cpu":
        return f"{text} (compute.dtype=auto: the devices are {platform.upper()}s)"
    found = sorted((vector_instructions() or set()) & {*MULTIPLY_BFLOAT16})
    why = f"has {' and '.join(found)}" if found else f"lacks {' and '.join(MULTIPLY_BFLOAT16)}"
    if vector_instructions() is None:
        why = "does not tell its instructions"
    return f"{text} (compute.dtype=auto: this CPU {why})"


def layers_per_iteration(model: ModelConfig, compute: ComputeConfig) -> int:
    """Returns how many layers an iteration of the scan over layers computes.

    That is `compute.scan_unroll`. Unset, it is all layers on a TPU, if there are at most 12 and
    remat is none: a loop copies what the backward pass needs to and from arrays of all layers, for
    which 124M without remat spends a third of its step. A part of the layers at a time still has
    the copies.
    """
    if compute.scan_unroll is not None:
        return compute.scan_unroll
    unrolled = model.num_layers <= _UNROLLED and compute.remat == "none"
    return model.num_layers if unrolled and platform_of() == "tpu" else 1


def loss_positions(chunk: int | None, rows: int, length: int, platform: str | None = None) -> int:
    """Returns how many positions of each sequence have their logits at a time; 0 means all.

    Args:
      chunk: `compute.loss_chunk`. Unset, it is the divisor of `length` whose ratio to the wanted
        number is nearest to 1: on a TPU 1,024 rows of logits over all sequences, elsewhere 128
        positions.
      rows: the sequences on one device.
      length: positions of each sequence.
      platform: the platform of the devices; by default of those in force, see `platform_of`.
    """
    if chunk is None:
        on_tpu = (platform or platform_of()) == "tpu"
        wanted = max(_ROWS_ON_TPU // max(rows, 1), 1) if on_tpu else _POSITIONS
        chunk = min(divisors(length), key=lambda size: abs(math.log(size / wanted)))
    return chunk if chunk < length else 0
