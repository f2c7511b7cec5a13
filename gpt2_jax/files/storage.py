"""Where runs and models lie: on a disk, or in a bucket of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from etils import epath

from gpt2_jax.errors import UserError, is_disk_full, shortened, warn


def storage_path(name: str | os.PathLike[str], flag: str = "") -> Path:
    """The path of that name, which behaves as a `pathlib.Path` for `gs://` too.

    Args:
      flag: what the user gave the name with, to begin an error.

    Raises:
      UserError: for `gs://` without the extra that reaches it, and for other schemes.
    """
    scheme, separator, _ = os.fspath(name).partition("://")
    told = f"{flag} {os.fspath(name)}".strip()
    if separator and scheme != "gs":
        raise UserError(f"{told}: name a folder on a disk, or gs://BUCKET/FOLDER")
    if separator and importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{told} needs Google Cloud Storage: pip install gpt2_jax[gcs]")
    return cast(Path, epath.Path(name)) if separator else Path(name)


def is_remote(path: os.PathLike[str]) -> bool:
    """Whether a path is in a bucket: objects there are written whole and have no permissions."""
    return os.fspath(path).startswith("gs://")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new."""
    if is_remote(path):  # where an object is replaced as a whole
        path.write_bytes(content)
        return
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it takes room
        raise


def remove_tree(folder: Path) -> None:
    """Removes a folder with all in it, if it is there."""
    epath.Path(folder).rmtree(missing_ok=True)


class PatientFile:
    """A file that is appended to: what a full or failing disk does not take waits in memory.

    Nothing but opening it ever raises: a run does not end, and a thread not die, of its logs.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file to append.

        Raises:
          OSError: if that fails for another reason than a full disk.
        """
        self._path = os.fspath(path)
        self._waiting = bytearray()
        self._descriptor: int | None = None
        self._told = False
        with unless_disk_full():
            self._open()

    def write(self, content: bytes) -> None:
        """Appends, at once if there is room."""
        self._waiting += content
        self.flush()

    def flush(self) -> None:
        """Writes what waits, or as much as there is room for."""
        try:
            descriptor = self._open()
            while self._waiting:
                del self._waiting[: os.write(descriptor, self._waiting)]
        except OSError as error:
            if not self._told:
                warn(f"{self._path}: {error.strerror}; what is to be written there waits in memory")
            self._told = True
        else:
            self._told = False

    def close(self) -> None:
        """Writes what waits, if there is room at last."""
        self.flush()
        if self._waiting:
            warn(f"{self._path} lacks its last {len(self._waiting)} bytes")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        return self._descriptor


@contextlib.contextmanager
def unless_disk_full() -> Iterator[None]:
    """A full disk ends the block, and nothing else."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise


@contextlib.contextmanager
def nice_to_have(what: str) -> Iterator[None]:
    """For what no run should end of: a failure to write it ends the block, with a warning."""
    try:
        yield
    except Exception as error:  # a bucket's errors are of many kinds
        warn(f"{what} is not written: {shortened(str(error), 200)}")
