"""Atomic writes of whole files: a reader, or the start after a crash, sees the old or the new."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gpt2_jax.files.paths import is_remote

_BUFFER_BYTES = 1 << 20
_counter = itertools.count()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    Raises:
      OSError: if that fails; then the file is what it was before, and nothing else is left.
    """
    with open_atomic(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to write, which replaces the one at `path` when the block ends.

    If the block raises, the file at `path` is what it was before, and what was written is removed.
    An object in a bucket is collected in memory and sent in one request.

    Raises:
      OSError: if the file cannot be written.
    """
    if is_remote(path):
        buffer = io.BytesIO()
        yield buffer
        path.write_bytes(buffer.getvalue())
        return
    # In the same folder, since a rename is atomic only within a file system. Other processes, other
    # hosts on a network disk and other threads may be writing the same file at the same time.
    writer = f"{socket.gethostname()}-{os.getpid()}-{next(_counter)}"
    temporary = path.with_name(f"{path.name}.{writer}.tmp")
    try:
        with open(temporary, "wb", _BUFFER_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk it takes room
        raise
