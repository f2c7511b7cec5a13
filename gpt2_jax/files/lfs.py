"""Recognizes Git LFS pointers, which stand in for large files that were not downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpt2_jax.errors import UserError

_BEGINNING = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024  # the specification's limit on the size of a pointer


def refuse_lfs_pointers(folder: Path, patterns: Iterable[str]) -> None:
    """Raises UserError that names the first file, of those that match, which is a pointer."""
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        small = path.is_file() and path.stat().st_size <= _LONGEST
        if small and path.read_bytes().startswith(_BEGINNING):
            raise UserError(
                f"{path} is a Git LFS pointer instead of the file itself: run `git lfs pull` "
                f"in {folder}"
            )
