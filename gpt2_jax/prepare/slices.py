"""Slices of files: what one work item reads of a file, and the check that the file is unchanged."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.files.lfs import refuse_lfs_pointer


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Describes a part of a file, as the file was when the corpus was listed.

    Neighbouring slices agree on where one ends and the next begins without communicating, so that
    any process can read any slice. The fields, their order and the names of formats and
    compressions are part of the keys of tokens on disk: `prepare` resumes only if they stay.

    Attributes:
      path: the absolute path.
      format: the name of an input format; see `formats.FORMATS`.
      compression: the name of a compression, or "" for none; see `compression.COMPRESSIONS`.
      size: bytes of the whole file.
      mtime_ns: time of the last change to the file.
      start: first byte, or another unit that the format counts in, such as row groups.
      stop: end of the slice in the same unit, exclusive; -1 is the end of the file.
    """

    path: str
    format: str
    compression: str
    size: int
    mtime_ns: int
    start: int = 0
    stop: int = -1


class Range(NamedTuple):
    """The place of a slice in its file, and how many bytes it has."""

    start: int
    stop: int
    size: int


def byte_ranges(path: str, size: int, slice_bytes: int) -> list[Range]:
    """Splits a file of `size` bytes into equal ranges of at most `slice_bytes`."""
    count = -(-size // slice_bytes)
    bounds = [size * i // count for i in range(count + 1)]
    return [Range(bounds[i], bounds[i + 1], bounds[i + 1] - bounds[i]) for i in range(count)]


def listed_stat(path: str) -> os.stat_result:
    """Returns the size and times of a file that is listed to be read.

    Raises:
      UserError: if it cannot be read, is a pipe or a device, or is a Git LFS pointer.
    """
    found = file_stat(path)
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for someone to write to it
        raise UserError(f"{path} is not a regular file: copy what it gives to a file, and name it")
    try:
        refuse_lfs_pointer(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return found


def file_stat(path: str) -> os.stat_result:
    """Returns the file's size and times; raises UserError if it cannot be read."""
    try:
        return os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def check_unchanged(file_slice: Slice) -> None:
    """Raises UserError if the slice's file no longer has the same size and time."""
    now = file_stat(file_slice.path)
    if (now.st_size, now.st_mtime_ns) != (file_slice.size, file_slice.mtime_ns):
        raise UserError(
            f"{file_slice.path} changed while it was being prepared: run the same command again "
            "when the file is complete"
        )


@contextlib.contextmanager
def reading(file_slice: Slice) -> Iterator[None]:
    """Checks around the reading of a slice that its file is unchanged, and names it in errors.

    Raises:
      UserError: if the file changes or cannot be read.
    """
    check_unchanged(file_slice)
    try:
        yield
    except (OSError, UserError) as error:
        check_unchanged(file_slice)  # a file that is being written to may look damaged
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {file_slice.path}: {error.strerror or error}") from None
    check_unchanged(file_slice)
