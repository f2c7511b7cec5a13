"""Stores compiled programs, one file each, on a disk or in a bucket.

Entries are written atomically, checked when they are read, and no locks exist: whatever other
processes do, an entry is read whole or compiled anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path

from gpt2_jax.errors import error_text, shortened, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote

VARIABLE = "GPT2_JAX_COMPILATION_CACHE"
"""The environment variable that names another folder, or turns the cache off with the word off."""

SUFFIX = ".program"
"""The end of the name of an entry's file."""

DIGITS = 16
"""The hexadecimal digits in the name of a folder of entries."""

MAX_BYTES = 1 << 30
"""The most bytes of entries on a disk, those for other processors and versions included."""

_KEPT_AFTER_EVICTION = 0.75  # of the limit, so that not every further entry has to evict
_COUNTED_AFTER = 1 / 16  # of the limit: other processes write, too, so entries are counted again
_STALE_SECONDS = 86400  # the age at which a temporary file is one that a killed process has left


def write_error(folder: Path) -> OSError | None:
    """Returns why a folder on a disk cannot be written, or made if it is missing; None if it can.

    Nothing is made but a temporary file, in the innermost folder that exists.
    """
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


class ProgramStore:
    """Stores the entries of JAX's compilation cache, one file each; no method raises an error.

    A file holds a sha256 and the entry. The sum covers the key and the name of the folder too, so
    that an entry that was moved to the place of another is not taken for it. Reading an entry on a
    disk sets the time of its file, and the entries that were not read for longest make room for new
    ones. In a bucket nothing is removed; a rule for the life cycle of its objects can do that.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Stores entries in `folder`, which is made when the first is written.

        Args:
          folder: its name is a digest; the limit is for all such folders that are beside it.
          max_bytes: the limit. Each process that writes at the same time may exceed it by a
            sixteenth, until it counts the entries again.
        """
        self._path = folder  # JAX shows it in its messages
        self._max_bytes = max_bytes
        self._room: int | None = None  # bytes until the next count; None before the first
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._reads = self._writes = True

    def get(self, key: str) -> bytes | None:
        """Returns the entry, or None if there is none, or it is damaged or cannot be read."""
        path = self._file(key)
        if not self._reads:
            return None
        try:
            content = path.read_bytes()
            digest, entry = content[:32], content[32:]
            if self._sum(key, entry) != digest:
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # the errors of buckets have no common base
            if is_remote(path):
                # Each attempt to reach a bucket that does not answer takes a minute.
                self._reads = self._writes = False
            self._warn("read", error)
            return None
        if not is_remote(path):
            # Another process may have removed it, or the disk may be read-only.
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def put(self, key: str, entry: bytes) -> None:
        """Writes the entry, unless a write, or a read from a bucket, has failed before."""
        with self._lock:
            content, path = self._sum(key, entry) + entry, self._file(key)
            if not self._writes or len(content) > self._max_bytes:
                return
            try:
                if not is_remote(path):
                    # For the user alone, because whoever can write here can run code as the user.
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._make_room(len(content))
                write_file(path, content)
            except Exception as error:  # the errors of buckets have no common base
                self._writes = False
                self._warn("written", error)

    def problem(self) -> str | None:
        """Returns the warning of a run that can write nothing, or None; a bucket is not tried."""
        error = None if is_remote(self._path) else write_error(self._path)
        return None if error is None else self._warning("written", error)

    def _sum(self, key: str, entry: bytes) -> bytes:
        return hashlib.sha256(f"{self._path.name}/{key}\0".encode() + entry).digest()

    def _file(self, key: str) -> Path:
        return self._path / f"{key}{SUFFIX}"

    def _warn(self, done: str, error: Exception) -> None:
        if done not in self._warned:
            warn(self._warning(done, error))
        self._warned.add(done)

    def _warning(self, done: str, error: Exception) -> str:
        reason = shortened(error_text(error), 200)
        return (
            f"compiled programs in {self._path} cannot be {done} ({reason}), so each start "
            f"compiles them anew: set {VARIABLE} to another folder, or to off"
        )

    def _make_room(self, size: int) -> None:
        if self._room is None or size > self._room:
            self._room = min(self._evict(size), int(_COUNTED_AFTER * self._max_bytes))
        self._room -= size

    def _evict(self, size: int) -> int:
        """Removes entries if there is no room for `size` bytes; returns the room there is."""
        entries = []
        for path in self._path.parent.glob(f"{'[0-9a-f]' * DIGITS}/*{SUFFIX}*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            old = time.time() - status.st_mtime > _STALE_SECONDS
            if path.suffix == ".tmp" and old:
                path.unlink(missing_ok=True)
            elif path.suffix == SUFFIX:
                entries.append((status.st_mtime, status.st_size, path))
        total = sum(entry_size for _, entry_size, _ in entries)
        if total + size > self._max_bytes:
            for _, entry_size, path in sorted(entries):
                path.unlink(missing_ok=True)  # another process may remove it at the same time
                total -= entry_size
                if total + size <= _KEPT_AFTER_EVICTION * self._max_bytes:
                    break
        return self._max_bytes - total
