"""Says which fast paths this machine and this installation offer, for `gpt2-jax doctor`."""

from __future__ import annotations

import importlib.metadata
import platform as machine
from collections.abc import Callable
from typing import Any

from gpt2_jax.cli import huge_pages
from gpt2_jax.parallel.cpu import MULTIPLY_BFLOAT16, vector_instructions


def installed_version(package: str) -> str | None:
    """Returns the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def fast_paths(devices: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns {name: {"on": whether it is taken here, None if that is unknown, "detail": why}}.

    Args:
      devices: those that JAX finds, as `doctor.examine` returns them.
    """
    platforms = {device["platform"] for device in devices}
    if "tpu" in platforms:
        matrix = {"on": True, "detail": "TPU matrix units"}
        paths = {"bf16": matrix, "int8": matrix}
    elif "gpu" in platforms:
        capability = min(float(d["compute_capability"] or 0) for d in devices)
        detail = f"compute capability {capability:g}"
        paths = {
            "bf16": {"on": capability >= 8.0, "detail": detail},
            "int8": {"on": capability >= 7.5, "detail": detail},
        }
    else:
        paths = _cpu_paths()
    platform = next((name for name in ("tpu", "gpu") if name in platforms), "cpu")
    on_tpu, on_cpu = platform == "tpu", platforms == {"cpu"}
    return paths | {
        "automatic_dtype": _with_jax(lambda: _automatic_dtype(platform)),
        "cudnn_attention": _cudnn(devices),
        "splash_attention": {"on": on_tpu, "detail": "Pallas kernel" if on_tpu else "no TPU"},
        "cpu_attention": {
            "on": on_cpu,
            "detail": "the kernel that compute.attention=auto takes on CPUs"
            if on_cpu
            else "JAX computes on other devices",
        },
        "kept_memory": _with_jax(_kept_memory),
        "huge_pages": huge_pages.describe(),
        "plans_compiled": _plans(),
        "compilation_cache": _with_jax(_compilation_cache),
    }


def _plans() -> dict[str, Any]:
    """Returns whether `gpt2-jax plan` has a compiler for TPU slices."""
    version = installed_version("libtpu")
    return {
        "on": bool(version),
        "detail": f"libtpu {version}" if version else "libtpu is not installed (extra tpu)",
    }


def _cpu_paths() -> dict[str, dict[str, Any]]:
    found = vector_instructions()
    if found is None:
        unknown = {"on": None, "detail": f"the instructions of {machine.machine()} are unknown"}
        return {"bf16": unknown, "int8": unknown}

    def fast(*candidates: str) -> dict[str, Any]:
        available = [name for name in candidates if name in found]
        return {
            "on": bool(available),
            "detail": ", ".join(available) or f"CPU has none of {', '.join(candidates)}",
        }

    return {
        "bf16": fast(*MULTIPLY_BFLOAT16),
        "int8": fast("amx_int8", "avx512_vnni", "avx_vnni"),
    }


def _cudnn(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns whether cuDNN attention is available: it needs Ampere or newer, and cuDNN."""
    gpus = [device for device in devices if device["platform"] == "gpu"]
    if not gpus:
        return {"on": False, "detail": "no NVIDIA GPU"}
    if min(float(gpu["compute_capability"] or 0) for gpu in gpus) < 8.0:
        return {"on": False, "detail": "needs compute capability 8.0 or higher"}
    library = next(
        (n for n in ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13") if installed_version(n)), None
    )
    if library is None:
        return {"on": None, "detail": "no cuDNN wheel is installed; the system may have cuDNN"}
    return {"on": True, "detail": f"{library} {installed_version(library)}"}


def _automatic_dtype(platform: str) -> dict[str, Any]:
    """Returns what `compute.dtype=auto` takes, and whether it multiplies in bfloat16."""
    from gpt2_jax.config import ComputeConfig
    from gpt2_jax.model.defaults import explain_dtype, with_dtype

    auto = ComputeConfig(dtype="auto")
    chosen = with_dtype(auto, platform)
    return {
        "on": "bfloat16" in (chosen.dtype, chosen.precision),
        "detail": explain_dtype(auto, platform),
    }


def _kept_memory() -> dict[str, Any]:
    """Returns whether `train` keeps the memory of a step for the next one."""
    from gpt2_jax.parallel.malloc import why_not_kept

    reason = why_not_kept()
    return {"on": reason is None, "detail": reason or "train keeps what a step frees for the next"}


def _compilation_cache() -> dict[str, Any]:
    from gpt2_jax.parallel.compilation_cache import describe

    return describe()


def _with_jax(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a function says that imports JAX, which may be broken."""
    try:
        return describe()
    except Exception:  # the reason is that of the devices, too
        return {"on": None, "detail": "JAX cannot be imported"}
