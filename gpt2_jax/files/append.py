"""Files that a run appends to, which never end the run: what cannot be written waits in memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gpt2_jax.errors import warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.best_effort import warn_if_not_written
from gpt2_jax.files.disk_full import is_disk_full
from gpt2_jax.files.paths import is_remote


def open_append(path: Path) -> AppendFile | RemoteAppendFile:
    """Opens a file to append to, on a disk or in a bucket.

    Raises:
      OSError: if it cannot be opened, unless the disk is full.
    """
    return RemoteAppendFile(path) if is_remote(path) else AppendFile(path)


class AppendFile:
    """Appends to a file; what a full or failing disk does not take waits in memory.

    Only opening the file raises: neither a run nor a thread that logs ends because of its log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file.

        Raises:
          OSError: if that fails, unless the disk is full.
        """
        self._path = os.fspath(path)
        self._waiting = bytearray()
        self._descriptor: int | None = None
        self._warned = False
        try:
            self._open()
        except OSError as error:
            if not is_disk_full(error):
                raise

    def write(self, content: bytes) -> None:
        """Appends the content, at once if there is room for it."""
        self._waiting += content
        self.flush()

    def flush(self) -> None:
        """Writes what waits in memory, or as much of it as there is room for."""
        try:
            descriptor = self._open()
            while self._waiting:
                del self._waiting[: os.write(descriptor, self._waiting)]
        except OSError as error:
            if not self._warned:
                warn(f"{self._path}: {error.strerror}; new content waits in memory for room")
            self._warned = True
        else:
            self._warned = False

    def close(self) -> None:
        """Writes what waits in memory, with a warning if there is still no room for it."""
        self.flush()
        if self._waiting:
            warn(f"{self._path} is missing its last {len(self._waiting)} bytes")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        return self._descriptor


class RemoteAppendFile:
    """Appends to an object in a bucket, which is sent whole every 30 seconds and when flushed."""

    _SEND_EVERY_S = 30

    def __init__(self, path: Path) -> None:
        """Reads the object, if it exists.

        Raises:
          Exception: of the kinds of the bucket's library, if it cannot be read.
        """
        self._path = path
        self._chunks = [path.read_bytes()] if path.exists() else []
        self._sent_at = time.monotonic()

    def write(self, content: bytes) -> None:
        """Appends the content, which is sent once 30 seconds have passed since the last time."""
        self._chunks.append(content)
        if time.monotonic() - self._sent_at >= self._SEND_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Sends all of the content; what the bucket does not take is sent again the next time."""
        self._sent_at = time.monotonic()
        with warn_if_not_written(os.fspath(self._path)):
            write_file(self._path, b"".join(self._chunks))

    def close(self) -> None:
        """Sends all of the content."""
        self.flush()
