"""Token shards in a bucket, whose ranges are read in parallel. Nothing here imports JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gpt2_jax.data.shard_file import HEADER_BYTES, TOKEN_DTYPE, parse_header, unreadable
from gpt2_jax.files.bucket import ByteRange, ObjectChangedError, StoredObject, read_ranges


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


def fill_from_bucket(wanted: Iterable[tuple[BucketShard, int, np.ndarray]]) -> None:
    """Fills arrays with tokens of any number of objects at once.

    Args:
      wanted: (shard, first token, contiguous uint16 array to fill from there on).

    Raises:
      UserError: if an object is missing or has changed; the arrays are not valid then.
      StorageError: if the bucket cannot be reached.
    """
    wanted = list(wanted)
    ranges = []
    for shard, first, array in wanted:
        start = shard.start + first * TOKEN_DTYPE.itemsize
        ranges.append(ByteRange(shard.source, start, start + array.nbytes))
    for (_, _, array), content in zip(wanted, _read(ranges), strict=True):
        array[:] = np.frombuffer(content, TOKEN_DTYPE)


def read_slices(source: StoredObject, starts: Sequence[int], length: int) -> list[memoryview]:
    """Returns bytes start .. start+length-1 of an object for each start, or up to its end.

    Raises:
      UserError: if the object is missing or has changed.
      StorageError: if the bucket cannot be reached.
    """
    return _read([ByteRange(source, at, min(at + length, source.size)) for at in starts])


def _read(ranges: Sequence[ByteRange]) -> list[memoryview]:
    try:
        return read_ranges(ranges)
    except ObjectChangedError as error:
        raise unreadable(error.source.path, error.problem) from None
