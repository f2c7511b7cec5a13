"""Keeps the memory that a step on the CPU frees, so that the next step can use it again."""

from __future__ import annotations

import ctypes
import os

import jax

from gpt2_jax.parallel.accelerators import only_cpus

# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

# The largest blocks to keep: mallopt takes an int, and older glibc no more than half of a heap.
_LARGEST_KEPT_BYTES = ((1 << 31) - 1, 32 << 20)


def keep_freed_memory() -> bool:
    """Makes malloc keep freed memory if steps run on the CPU; returns whether it does.

    XLA allocates the temporaries of a step again in every step. glibc returns blocks of that size
    to the kernel, which maps and clears them again page by page: 20,000 page faults and a quarter
    of the time of a step of `configs/quickstart.py`, 440,000 and a fifth of a step of 124M. One
    arena that is never trimmed avoids both. Call this before JAX starts its threads, because each
    would get an arena of its own.

    Does nothing if JAX may have an accelerator, or with another C library.
    """
    if why_not_kept() is not None:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_KEPT_BYTES)
    return all([kept, mallopt(_ARENA_MAX, 1), mallopt(_TRIM_THRESHOLD, -1)])


def why_not_kept() -> str | None:
    """Returns why `keep_freed_memory` does nothing here, or None if it does something."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        return "the C library is not glibc"
    if not only_cpus(os.environ, platforms=jax.config.values["jax_platforms"]):
        return "JAX may use other devices than CPUs"
    return None


def return_freed_memory() -> None:
    """Returns to the kernel what malloc keeps and nobody uses, if the C library is glibc.

    What initialization and validations leave behind may be so fragmented that a step cannot use
    it. The next step takes a little longer, because the kernel has to map its temporaries again.
    """
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
