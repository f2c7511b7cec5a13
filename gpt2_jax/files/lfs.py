"""Recognizes Git LFS pointers, which stand in for large files that were not downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote

_BEGINNING = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024  # the specification's limit on the size of a pointer


def refuse_lfs_pointers(folder: Path, patterns: Iterable[str]) -> None:
    """Raises UserError that names the first file, of those that match, which is a pointer."""
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        if path.is_file():
            refuse_lfs_pointer(path)


def refuse_lfs_pointer(path: str | os.PathLike[str], content: bytes | None = None) -> None:
    """Raises UserError if a file is a pointer.

    Args:
      path: the file, on a disk or in a bucket.
      content: its content, or the first kilobyte of it; by default read from the disk if it is so
        small that it could be a pointer.

    Raises:
      OSError: if the file cannot be read.
    """
    if content is None:
        if os.stat(path).st_size > _LONGEST:
            return
        content = Path(path).read_bytes()
    if content.startswith(_BEGINNING):
        folder = Path(path).parent
        remedy = (
            "pull the file itself with `git lfs pull`, and copy it there"
            if is_remote(path)
            else f"run `git lfs pull` in {folder}"
        )
        raise UserError(f"{path} is a Git LFS pointer instead of the file itself: {remedy}")
