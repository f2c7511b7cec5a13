"""Where runs and models lie: on a disk, or in a bucket of Google Cloud Storage."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import cast

from etils import epath

from gpt2_jax.errors import UserError


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
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def remove_tree(folder: Path) -> None:
    """Removes a folder with all in it, if it is there."""
    epath.Path(folder).rmtree(missing_ok=True)
