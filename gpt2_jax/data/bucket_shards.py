"""Token shards in a bucket, whose ranges are read in parallel. Nothing here imports JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gpt2_jax.data.shard_file import HEADER_BYTES, TOKEN_DTYPE, Views, parse_header, unreadable
from gpt2_jax.files.bucket import (
    ByteRange,
    ObjectChangedError,
    StoredObject,
    read_blocks,
    read_ranges,
)


@dataclasses.dataclass(frozen=True)
class BucketShard:
    """Describes an object of tokens, as it was when its folder was listed.

    Every read asks for the generation that was listed, so that it fails once the object is written
    to or removed.

    Attributes:
      source: the object.
      tokens: number of tokens in it.
      start: bytes before the first token.
    """

    source: StoredObject
    tokens: int
    start: int

    @property
    def path(self) -> Path:
        """Returns the `gs://` path."""
        return self.source.path

    @property
    def size(self) -> int:
        """Returns the bytes of the whole object."""
        return self.source.size

    def __len__(self) -> int:
        """Returns the number of tokens in the object."""
        return self.tokens

    @staticmethod
    def fill_all(wanted: Mapping[BucketShard, Views]) -> None:
        """Fills arrays with tokens of any number of objects at once; see `Shard`."""
        arrays, ranges = [], []
        for shard, views in wanted.items():
            for first, array in views:
                start = shard.start + first * TOKEN_DTYPE.itemsize
                ranges.append(ByteRange(shard.source, start, start + array.nbytes))
                arrays.append(array)
        for array, content in zip(arrays, _read(ranges), strict=True):
            array[:] = np.frombuffer(content, TOKEN_DTYPE)

    def slices(self, starts: Sequence[int], length: int) -> Sequence[memoryview]:
        """Returns bytes start .. start+length-1 for each start, or up to the end; see `Shard`."""
        size = self.source.size
        return _read([ByteRange(self.source, at, min(at + length, size)) for at in starts])

    def sha256(self) -> str:
        """Returns the sha256 of the whole object in hex; see `Shard`."""
        digest = hashlib.sha256()
        with _naming_changes():
            for block in read_blocks(self.source):
                digest.update(block)
        return digest.hexdigest()


def open_bucket_shards(sources: Sequence[StoredObject]) -> list[BucketShard]:
    """Returns the descriptions of objects, whose headers are read in parallel.

    Raises:
      UserError: if an object is not a shard, or its size is not that in its header.
      StorageError: if the bucket cannot be reached.
    """
    heads = _read([ByteRange(each, 0, min(HEADER_BYTES, each.size)) for each in sources])
    shards = []
    for source, head in zip(sources, heads, strict=True):
        start = parse_header(source.path, source.size, bytes(head))
        tokens = (source.size - start) // TOKEN_DTYPE.itemsize
        shards.append(BucketShard(source, tokens, start))
    return shards


def _read(ranges: Sequence[ByteRange]) -> list[memoryview]:
    with _naming_changes():
        return read_ranges(ranges)


@contextlib.contextmanager
def _naming_changes() -> Iterator[None]:
    """Raises what the block finds out about an object that has changed as UserError."""
    try:
        yield
    except ObjectChangedError as error:
        raise unreadable(error.source.path, error.problem) from None
