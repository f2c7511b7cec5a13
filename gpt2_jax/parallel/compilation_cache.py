"""Keeps compiled programs on a disk or in a bucket, so that later starts load them.

This is JAX's persistent compilation cache with another way of storing its entries. JAX writes an
entry in place, so that a process that is killed meanwhile leaves a part of it for good. It bounds
the size only with the help of lock files, for which it needs another package, and which a bucket
does not have. Here entries are written atomically, checked when they are read, and no locks exist:
whatever other processes do, an entry is read whole or compiled anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import threading
import time
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache as jax_cache  # has no public way to store entries elsewhere

from gpt2_jax.errors import error_text, shortened, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote, resolve_path

VARIABLE = "GPT2_JAX_COMPILATION_CACHE"
"""The environment variable that names another folder, or turns the cache off with the word off."""

MAX_BYTES = 1 << 30
"""The most bytes of entries on a disk, those for other processors and versions included."""

_OFF = "off"
_JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# By default JAX keeps what took a second to compile. To load also what takes a fiftieth halves the
# time of `sample` that keeping only the former leaves; even faster programs gain nothing.
_JAX_MIN_SECONDS, _MIN_SECONDS = 1.0, 0.02
_CPU_INFO = Path("/proc/cpuinfo")
_KEPT_AFTER_EVICTION = 0.75  # of MAX_BYTES, so that not every further entry has to evict
_SUFFIX = ".program"
_DIGITS = 16  # of the name of a folder
_STALE_SECONDS = 86400  # the age at which a temporary file is one that a killed process has left


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
    if where == _OFF:
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
    programs, others = ProgramStore(folder), jax_cache.get_file_cache

    def get_file_cache(path: str) -> Any:
        return (programs, path) if path == os.fspath(folder) else others(path)

    jax_cache.get_file_cache = get_file_cache
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))


def programs_folder() -> Path | None:
    """Returns the folder of the programs for this machine, or None if the user wants none.

    It is a folder in the one that the environment variable `VARIABLE` names, by default
    `gpt2_jax/compiled` among the user's caches. Its name is a digest of the processor's features
    and of the versions of JAX, because programs for others may crash.

    Raises:
      UserError: if the variable names neither a folder on a disk nor one in a bucket that can be
        reached.
    """
    named = os.environ.get(VARIABLE)
    if named == _OFF:
        return None
    return _folder(named or os.fspath(_user_caches()), VARIABLE)


def describe() -> dict[str, Any]:
    """Returns what `doctor` reports: {"on", "detail", "folder", "entries", "bytes"}.

    Entries and bytes are None for a bucket, whose objects are not listed; they and the folder are
    None if there is no cache.
    """
    report = {"on": False, "detail": f"{VARIABLE}=off", "folder": None}
    report |= {"entries": None, "bytes": None}
    if theirs := _user_decides():
        named = jax.config.values["jax_compilation_cache_dir"]
        enabled = jax.config.values["jax_enable_compilation_cache"]
        folder = resolve_path(named, _JAX_VARIABLE) if named and enabled else None
        report["detail"] = "turned off by JAX's own settings"
    else:
        folder = programs_folder()
    if folder is None:
        return report
    report |= {"on": True, "detail": os.fspath(folder), "folder": os.fspath(folder)}
    if not is_remote(folder):
        pattern = "*-cache" if theirs else f"*{_SUFFIX}"
        sizes = [path.stat().st_size for path in folder.glob(pattern)]
        limit = f", set by {_JAX_VARIABLE}" if theirs else f" of at most {MAX_BYTES >> 20:,}"
        report["detail"] += f": {len(sizes)} programs, {sum(sizes) / 2**20:,.1f} MiB{limit}"
        report |= {"entries": len(sizes), "bytes": sum(sizes)}
    return report


class ProgramStore:
    """Stores the entries of JAX's compilation cache, one file each; no method raises an error.

    A file holds the sha256 of an entry and the entry. Reading an entry on a disk sets the time of
    its file, and the entries that were not read for longest make room for new ones. In a bucket
    nothing is removed; a rule for the life cycle of its objects can do that.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Stores entries in `folder`, which is made when the first is written.

        Args:
          folder: its name is a digest; the limit is for all such folders that are beside it.
          max_bytes: the limit.
        """
        self._path = folder  # JAX shows it in its messages
        self._max_bytes = max_bytes
        self._room: int | None = None  # bytes until the limit; None until they have been counted
        self._lock = threading.Lock()
        self._warned = False

    def get(self, key: str) -> bytes | None:
        """Returns the entry, or None if there is none, or it is damaged or cannot be read."""
        path = self._file(key)
        try:
            content = path.read_bytes()
            digest, entry = content[:32], content[32:]
            if hashlib.sha256(entry).digest() != digest:
                return None
        except FileNotFoundError:
            return None
        except Exception as error:  # the errors of buckets have no common base
            self._warn("read", error)
            return None
        if not is_remote(path):
            # Another process may have removed it, or the disk may be read-only.
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def put(self, key: str, entry: bytes) -> None:
        """Writes the entry, unless a write has failed before."""
        with self._lock:
            content, path = hashlib.sha256(entry).digest() + entry, self._file(key)
            if self._warned or len(content) > self._max_bytes:
                return
            try:
                if not is_remote(path):
                    # For the user alone, because whoever can write here can run code as the user.
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._make_room(len(content))
                write_file(path, content)
            except Exception as error:  # the errors of buckets have no common base
                self._warn("written", error)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}{_SUFFIX}"

    def _warn(self, done: str, error: Exception) -> None:
        if not self._warned:
            reason = shortened(error_text(error), 200)
            warn(
                f"compiled programs in {self._path} cannot be {done} ({reason}), so each start "
                f"compiles them anew: set {VARIABLE} to another folder, or to off"
            )
        self._warned = True

    def _make_room(self, size: int) -> None:
        if self._room is None or size > self._room:
            self._room = self._evict(size)
        self._room -= size

    def _evict(self, size: int) -> int:
        """Removes entries if there is no room for `size` bytes; returns the room there is."""
        entries = []
        for path in self._path.parent.glob(f"{'[0-9a-f]' * _DIGITS}/*{_SUFFIX}*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            old = time.time() - status.st_mtime > _STALE_SECONDS
            if path.suffix == ".tmp" and old:
                path.unlink(missing_ok=True)
            elif path.suffix == _SUFFIX:
                entries.append((status.st_mtime, status.st_size, path))
        total = sum(entry_size for _, entry_size, _ in entries)
        if total + size > self._max_bytes:
            for _, entry_size, path in sorted(entries):
                path.unlink(missing_ok=True)  # another process may remove it at the same time
                total -= entry_size
                if total + size <= _KEPT_AFTER_EVICTION * self._max_bytes:
                    break
        return self._max_bytes - total


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
    return resolve_path(name, flag) / _machine_digest()


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
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:_DIGITS]
