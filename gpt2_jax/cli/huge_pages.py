"""Starts a command again so that malloc asks for huge pages, which glibc decides at its start."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.parallel.accelerators import only_cpus

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"
_FIRST_GLIBC = (2, 35)
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Replaces this process by the same command on huge pages, if steps run on CPUs and it can.

    The memory of a step is kept for the next (see `parallel/malloc.py`), but the kernel maps it
    page by page when it is first used. Pages of 2 MB save most of that, and let the processor find
    addresses faster. Call this before anything slow is imported. The process keeps its number and
    its open files. Does nothing where the user has chosen for or against huge pages.
    """
    if _TUNABLE in os.environ.get(_VARIABLE, ""):
        _block_interrupts(False)  # in the new process, which may have inherited that
        return
    with contextlib.suppress(OSError):  # without huge pages everything works as well, but slower
        value = tunables(os.environ, _KERNEL.read_text("utf-8"), platform.libc_ver())
        if value is not None and sys.executable and only_cpus(os.environ):
            environment = os.environ | {_VARIABLE: value}
            # While Python starts, it could only show a traceback of its own start.
            _block_interrupts(True)
            try:
                os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
            finally:  # if that has failed
                _block_interrupts(False)


def _block_interrupts(block: bool) -> None:
    """Makes Ctrl-C wait, or no longer."""
    how = signal.SIG_BLOCK if block else signal.SIG_UNBLOCK
    signal.pthread_sigmask(how, {signal.SIGINT})


def describe() -> dict[str, Any]:
    """Returns {"on": whether `train` and `eval` have their memory on huge pages, "detail": why}."""
    present = os.environ.get(_VARIABLE, "")
    try:
        kernel = _KERNEL.read_text("utf-8")
    except OSError:
        return {"on": False, "detail": "the system offers none"}
    if not only_cpus(os.environ):
        return {"on": False, "detail": "JAX may use other devices than CPUs"}
    if tunables(os.environ, kernel, platform.libc_ver()) is not None:
        return {"on": True, "detail": f"train and eval set {_VARIABLE}={_TUNABLE}=1"}
    if "[always]" in kernel:
        return {"on": True, "detail": "Linux takes them unasked"}
    if "[madvise]" not in kernel:
        return {"on": False, "detail": f"{_KERNEL} says never"}
    if _TUNABLE in present:
        off = f"{_TUNABLE}=0" in present
        return {"on": not off, "detail": f"{_VARIABLE}={present} in the environment"}
    first = ".".join(map(str, _FIRST_GLIBC))
    return {"on": False, "detail": f"malloc asks for them from glibc {first} on"}


def tunables(environment: Mapping[str, str], kernel: str, libc: tuple[str, str]) -> str | None:
    """Returns the GLIBC_TUNABLES with which malloc asks for huge pages, or None if none would.

    Args:
      environment: the variables as they are; those of glibc that are set are kept.
      kernel: what Linux offers, such as `always [madvise] never`. With `always` nothing needs to
        ask, and with `never` asking does not help.
      libc: name and version of the C library.
    """
    name, version = libc
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    present = environment.get(_VARIABLE, "")
    if name != "glibc" or numbers < _FIRST_GLIBC or "[madvise]" not in kernel:
        return None
    if _TUNABLE in present:
        return None
    return f"{present}:{_TUNABLE}=1".removeprefix(":")
