"""Says which CPU this machine has, and which vector instructions."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

MULTIPLY_BFLOAT16 = ("amx_bf16", "avx512_bf16")
"""The instructions of x86 that multiply numbers in bfloat16 and add them in float32."""

_CPU_INFO = Path("/proc/cpuinfo")


def vector_instructions() -> set[str] | None:
    """Returns the names of the extensions AVX and AMX, or None if they are unknown.

    They are as Linux lists them, such as `avx512f`; other systems do not list them.
    """
    try:
        text = _CPU_INFO.read_text("utf-8")
    except OSError:
        return None
    return set(re.findall(r"\b(?:amx|avx)\w*", text))


def multiplies_bfloat16() -> bool:
    """Returns whether the CPU is known to multiply in bfloat16 faster than in float32."""
    return not (vector_instructions() or set()).isdisjoint(MULTIPLY_BFLOAT16)


def available_cores() -> list[int]:
    """Returns the numbers of the CPU cores that this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):  # macOS does not have it
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor_name() -> str:
    """Returns the name of the CPU, or of its architecture if the system does not tell."""
    try:
        text = _CPU_INFO.read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine()
