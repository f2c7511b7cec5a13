"""Folders of token shards: the one place that tells a disk from a bucket. Imports no JAX."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gpt2_jax.data.bucket_shards import open_bucket_shards
from gpt2_jax.data.shard_file import Shard, open_shard
from gpt2_jax.errors import UserError
from gpt2_jax.files import bucket
from gpt2_jax.files.paths import is_remote, resolve_path


class DataFolder(Protocol):
    """Describes what was directly in a folder when it was listed."""

    @property
    def names(self) -> Sequence[str]:
        """Returns the names of what is in it, sorted."""
        ...

    def open_shards(self, names: Sequence[str]) -> Sequence[Shard]:
        """Returns the descriptions of files of tokens.

        Raises:
          UserError: if one cannot be read, or is not a shard.
          StorageError: if a bucket cannot be reached.
        """
        ...


@dataclasses.dataclass(frozen=True)
class _DiskFolder:
    path: Path
    names: Sequence[str]

    def open_shards(self, names: Sequence[str]) -> Sequence[Shard]:
        return [open_shard(self.path / name) for name in names]


@dataclasses.dataclass(frozen=True)
class _BucketFolder:
    objects: Mapping[str, bucket.StoredObject]

    @property
    def names(self) -> Sequence[str]:
        return list(self.objects)

    def open_shards(self, names: Sequence[str]) -> Sequence[Shard]:
        return open_bucket_shards([self.objects[name] for name in names])


def list_folder(path: str | Path) -> DataFolder | None:
    """Returns what is directly in a folder of shards, or None if there is no such folder.

    In a bucket a folder is there if it has any objects.

    Raises:
      UserError: for `gs://` without the extra that reaches buckets, and for any other scheme.
      StorageError: if a bucket cannot be reached.
    """
    folder = resolve_path(path)
    if is_remote(folder):
        objects = bucket.list_objects(folder)
        return _BucketFolder(objects) if objects else None
    return _DiskFolder(folder, sorted(os.listdir(folder))) if folder.is_dir() else None


def require_folder(path: str | Path) -> DataFolder:
    """Returns what is directly in a folder of shards.

    Raises:
      UserError: if there is no such folder, and as `list_folder` does.
      StorageError: if a bucket cannot be reached.
    """
    if (found := list_folder(path)) is not None:
        return found
    folder = resolve_path(path)
    if is_remote(folder):
        raise UserError(f"no data folder {path}: name another")
    if folder.exists():
        raise UserError(
            f"no data folder {path}: it is a file; name its folder, {folder.parent}, or a .jsonl "
            "file of examples"
        )
    raise UserError(
        f"no data folder {path}: make it with gpt2-jax prepare --out {path}, or name another, or a "
        ".jsonl file of examples"
    )


def read_small_file(path: Path) -> bytes | None:
    """Returns the content of a file or an object, or None if there is none.

    Raises:
      OSError: if a file cannot be read.
      StorageError: if a bucket cannot be reached.
    """
    if is_remote(path):
        return bucket.read_object(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
