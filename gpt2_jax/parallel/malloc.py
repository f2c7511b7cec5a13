"""What becomes of the memory that a step on the CPU frees."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path

import jax

# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

# Blocks above this go back at once, or the heap of a model of gigabytes breaks into fragments.
_LARGEST_KEPT_BYTES = 128 << 20


def keep_freed_memory() -> bool:
    """Has malloc keep what it frees, where steps run on the CPU; returns whether it does.

    XLA allocates the temporaries of a step anew in every step. glibc hands blocks of that size back
    to the kernel, which maps and clears them again page by page: 20,000 page faults and a quarter
    of the time of a step of `configs/quickstart.py`. From one arena that is never trimmed they cost
    neither. Call it before JAX starts its threads, each of which would bring an arena of its own.

    Does nothing where JAX may have an accelerator, or with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not _cpu_only():
        return False
    settings = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _LARGEST_KEPT_BYTES, _TRIM_THRESHOLD: -1}
    return all([mallopt(name, value) for name, value in settings.items()])


def _cpu_only() -> bool:
    """Whether JAX will compute on the CPU, told without starting its backends."""
    if platforms := jax.config.values["jax_platforms"]:
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    tpus = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return not plugins and not (tpus and importlib.util.find_spec("libtpu"))
