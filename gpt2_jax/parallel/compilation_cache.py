"""Keeps compiled programs on a disk or in a bucket, so that later starts load them.

This is JAX's persistent compilation cache with another way of storing its entries; see
`program_store.py`. JAX writes an entry in place, so that a process that is killed meanwhile leaves
a part of it for good. It bounds the size only with the help of lock files, for which it needs
another package, and which a bucket does not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache as jax_cache  # has no public way to store entries elsewhere

from gpt2_jax.errors import UserError, error_text, short_repr
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.parallel.program_store import (
    DIGITS,
    MAX_BYTES,
    SUFFIX,
    VARIABLE,
    ProgramStore,
    write_error,
)

_OFF = ("off", "0", "false", "none")
_JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# By default JAX keeps what took a second to compile. To load also what takes a fiftieth halves the
# time of `sample` that keeping only the former leaves; even faster programs gain nothing.
_JAX_MIN_SECONDS, _MIN_SECONDS = 1.0, 0.02
_CPU_INFO = Path("/proc/cpuinfo")


def keep_compiled_programs(where: str | None = None) -> None:
    """Makes JAX keep the programs that this process compiles, and load those that it finds.

    A folder that cannot be written causes a warning, and no error. Later calls change nothing.

    Args:
      where: the folder, on a disk or in a bucket, or `off`. By default, the user's settings of
        JAX (`JAX_COMPILATION_CACHE_DIR`, `jax_compilation_cache_dir`) are left as they are; if
        there are none, `programs_folder` decides.

    Raises:
      UserError: for neither a folder on a disk nor one in a bucket that can be reached.
    """
    if where is not None and _is_off(where):
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if where is None and _user_decides():
        return
    folder = programs_folder() if where is None else _folder(where, "--compilation_cache")
    if folder is None:
        return
    jax.config.update("jax_enable_compilation_cache", True)
    if is_remote(folder) and jax.config.values["jax_persistent_cache_enable_xla_caches"]:
        # XLA itself, which writes these, reaches no buckets.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if (
        jax.config.values["jax_persistent_cache_min_compile_time_secs"] == _JAX_MIN_SECONDS
        and "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ
    ):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    jax_cache.get_file_cache = _Stores(folder, jax_cache.get_file_cache)
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))


def programs_folder() -> Path | None:
    """Returns the folder of the programs for this machine, or None if there should be none.

    It is a folder in the one that the environment variable `VARIABLE` names, by default
    `gpt2_jax/compiled` among the user's caches. Its name is a digest of the processor's features
    and of the versions of JAX, because programs for others may crash.

    There should be none if the variable is `off`, or if the run has several processes and the
    variable is not set. Then each machine may have a folder of its own, in which JAX lets only
    process 0 write. On GPUs the processes that compile divide the choice of kernels among
    themselves, and would wait for the part of one that has loaded its program.

    Raises:
      UserError: if the variable names neither a folder on a disk nor one in a bucket that can be
        reached.
    """
    named = os.environ.get(VARIABLE)
    if named and _is_off(named):
        return None
    if not named and jax.distributed.is_initialized():
        return None
    return _folder(named or os.fspath(_user_caches()), VARIABLE)


def describe() -> dict[str, Any]:
    """Returns what `doctor` reports: {"on", "detail", "folder", "entries", "bytes", "problem"}.

    Entries and bytes are None for a bucket, whose objects are not listed; they and the folder are
    None if there is no cache. The problem, if there is one, is what the next run will say.
    """
    report: dict[str, Any] = {"on": False, "detail": f"{VARIABLE}={os.environ.get(VARIABLE)}"}
    report |= {"folder": None, "entries": None, "bytes": None, "problem": None}
    if _kept_folder() is None and _user_decides():
        return report | _describe_jax()
    try:
        folder = _kept_folder() or programs_folder()
        if folder is None:
            return report
        report |= {"folder": os.fspath(folder), "detail": os.fspath(folder), "on": True}
        report["problem"] = ProgramStore(folder).problem()
        if not is_remote(folder) and report["problem"] is None:
            counts = _count(folder, f"*{SUFFIX}")
            limit = f" of about {MAX_BYTES >> 20:,} at most"
            report |= counts | {"detail": f"{folder}: {_in_words(counts)}{limit}"}
    except (UserError, OSError) as error:
        report["problem"] = str(error)
    if report["problem"] is not None:
        report |= {"on": False, "detail": report["problem"]}
    return report


def _describe_jax() -> dict[str, Any]:
    """Returns what `describe` says of a cache that the user has set with JAX's own settings."""
    named = jax.config.values["jax_compilation_cache_dir"]
    if not (named and jax.config.values["jax_enable_compilation_cache"]):
        return {"detail": "turned off by JAX's own settings"}
    by = _JAX_VARIABLE if _JAX_VARIABLE in os.environ else "jax_compilation_cache_dir"
    report = {"on": True, "detail": f"{named}, set by {by}", "folder": named}
    if "://" in named:  # JAX may reach other places than we do
        return report
    if (error := write_error(Path(named))) is not None:
        problem = f"{named}, set by {by}, cannot be written ({error_text(error)})"
        return report | {"on": False, "detail": problem, "problem": problem}
    counts = _count(Path(named), "*-cache")
    return report | counts | {"detail": f"{named}: {_in_words(counts)}, set by {by}"}


def _count(folder: Path, pattern: str) -> dict[str, int]:
    sizes = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process may remove it
            sizes.append(path.stat().st_size)
    return {"entries": len(sizes), "bytes": sum(sizes)}


def _in_words(counts: dict[str, int]) -> str:
    return f"{counts['entries']} programs, {counts['bytes'] / 2**20:,.1f} MiB"


class _Stores:
    """Stands in for JAX's `get_file_cache`: our store for our folder, and JAX's for others."""

    def __init__(self, folder: Path, others: Callable[[str], Any]) -> None:
        self.folder, self._programs, self._others = folder, ProgramStore(folder), others

    def __call__(self, path: str) -> Any:
        ours = path == os.fspath(self.folder)
        return (self._programs, path) if ours else self._others(path)


def _kept_folder() -> Path | None:
    """Returns the folder that `keep_compiled_programs` has made JAX use, if it still does."""
    stores = jax_cache.get_file_cache
    if not isinstance(stores, _Stores) or not jax.config.values["jax_enable_compilation_cache"]:
        return None
    used = jax.config.values["jax_compilation_cache_dir"]
    return stores.folder if used == os.fspath(stores.folder) else None


def _is_off(name: str) -> bool:
    """Returns whether the value of the variable or the flag turns the cache off."""
    return name.strip().lower() in _OFF


def _user_decides() -> bool:
    """Returns whether the user has set the folder of JAX's cache, or turned it off."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    return _JAX_VARIABLE in os.environ or not (
        jax.config.values["jax_enable_compilation_cache"] and folder is None
    )


def _user_caches() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path is to be ignored.
    root = Path(caches) if os.path.isabs(caches) else Path(os.path.expanduser("~"), ".cache")
    return root / "gpt2_jax" / "compiled"


def _folder(name: str, flag: str) -> Path:
    if "\0" in name or not _is_unicode(name):  # as XLA needs it
        raise UserError(
            f"{flag} {short_repr(name)} cannot be used: name a folder in valid UTF-8, or off"
        )
    path = resolve_path(name, flag)
    # The process may change its current folder.
    return (path if is_remote(path) else path.absolute()) / _machine_digest()


def _is_unicode(name: str) -> bool:
    """Returns whether a name is valid Unicode; Python's names of files may not be."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _machine_digest() -> str:
    """Returns a digest of what a program on this machine depends on and JAX's keys may not have."""
    try:
        text = _CPU_INFO.read_text("utf-8", errors="replace")
    except OSError:  # only Linux has it
        text = ""
    # The names of x86 and of Arm. Others, such as the frequency, vary.
    lines = re.findall(r"^(?:model name|flags|CPU part|Features)\s*:.*$", text, re.MULTILINE)
    described = [platform.system(), platform.machine(), *sorted(set(lines))]
    described += [importlib.metadata.version(name) for name in ("jax", "jaxlib")]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:DIGITS]
