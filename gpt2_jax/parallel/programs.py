"""Listens to which programs JAX compiles and loads, and leaves a note of them; see run_info.py."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import threading
from collections.abc import Iterator
from typing import Any

import jax

from gpt2_jax.errors import error_text, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.parallel.cpu import available_cores, processor_name
from gpt2_jax.parallel.run_info import VARIABLE, RunInfo

_LOADED = "/jax/compilation_cache/cache_hits"
# Its duration includes that of looking into the cache; it ends after the event that says of a hit.
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Programs:
    """Lists the programs that this process compiles and loads from now on.

    A program that takes less time to compile than one must take to be kept is not listed.

    Attributes:
      compiled: names of the functions that were compiled.
      loaded: names of the functions whose programs were in the compilation cache.
    """

    def __init__(self) -> None:
        """Begins to listen to JAX."""
        self.compiled: list[str] = []
        self.loaded: list[str] = []
        self._thread = threading.local()  # programs may be compiled in several threads
        jax.monitoring.register_event_listener(self._on_event)
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def _on_event(self, event: str, **_: Any) -> None:
        if event == _LOADED:
            self._thread.hit = True

    def _on_duration(self, event: str, duration_secs: float, **details: Any) -> None:
        if event != _COMPILED:
            return
        name = str(details.get("fun_name", ""))
        if getattr(self._thread, "hit", False):
            self._thread.hit = False
            self.loaded.append(name)
        elif duration_secs >= jax.config.values["jax_persistent_cache_min_compile_time_secs"]:
            self.compiled.append(name)


@contextlib.contextmanager
def leave_run_info() -> Iterator[None]:
    """Writes the note of the block to the file that `VARIABLE` names, when the block ends.

    It is written by process 0, also if the block raises, and not if there is no such variable. A
    file that cannot be written causes a warning.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        yield
        return
    programs = Programs()
    try:
        yield
    finally:
        try:
            if jax.process_index() == 0:
                note = RunInfo(describe(), programs.compiled, programs.loaded)
                write_file(resolve_path(name, VARIABLE), note.to_bytes())
        except Exception as error:  # the errors of buckets and devices have no common base
            warn(f"{VARIABLE}={name} cannot be written: {error_text(error)}")


def describe() -> dict[str, str]:
    """Returns {what: text} of the versions, the devices and the processor of this process."""
    kinds: dict[str, int] = {}
    for device in jax.devices():
        kinds[device.device_kind] = kinds.get(device.device_kind, 0) + 1
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        "device": ", ".join(f"{count} x {kind}" for kind, count in kinds.items()),
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "cores": str(len(available_cores())),
    }
