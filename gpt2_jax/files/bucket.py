"""Reads from buckets of Google Cloud Storage: listings, and many ranges of bytes in parallel."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.errors import Gpt2JaxError, StorageError, error_text, shortened
from gpt2_jax.files.extras import import_extra

# A request takes about as long for a few bytes as for this many, so that ranges of one object with
# smaller gaps between them are one request.
_GAP_BYTES = 1 << 16
_REQUEST_BYTES = 1 << 23
_REQUESTS_AT_ONCE = 64


class StoredObject(NamedTuple):
    """Describes an object as it was when it was listed.

    Attributes:
      path: its `gs://` path.
      size: its bytes.
      generation: the number that every write of the object changes.
    """

    path: Path
    size: int
    generation: str

    @property
    def name(self) -> str:
        """Returns the last part of the path."""
        return self.path.name


class ByteRange(NamedTuple):
    """Names bytes start .. stop-1 of an object."""

    source: StoredObject
    start: int
    stop: int


class ObjectChangedError(Exception):
    """Reports that an object no longer is what was listed."""

    def __init__(self, source: StoredObject, problem: str) -> None:
        """Takes the object, and what has happened to it, such as `is missing`."""
        super().__init__(f"{source.path} {problem}")
        self.source, self.problem = source, problem


def list_objects(folder: Path) -> dict[str, StoredObject]:
    """Returns the objects directly in a folder by name, sorted; none if there is no such folder.

    Raises:
      StorageError: if the bucket cannot be reached.
    """
    root = _key(folder).rstrip("/") + "/"
    entries: Sequence[dict[str, Any]] = ()
    with _reading(folder), contextlib.suppress(FileNotFoundError):
        entries = _storage().ls(root, detail=True)
    names = {entry["name"].removeprefix(root): entry for entry in entries}
    return {
        name: StoredObject(folder / name, int(entry["size"]), str(entry["generation"]))
        for name, entry in sorted(names.items())
        if name and "/" not in name and entry["type"] == "file"
    }


def read_object(path: Path) -> bytes | None:
    """Returns the content of an object, or None if there is none.

    Raises:
      StorageError: if the bucket cannot be reached.
    """
    with _reading(path), contextlib.suppress(FileNotFoundError):
        return _storage().cat_file(_key(path))
    return None


def read_ranges(ranges: Sequence[ByteRange]) -> list[memoryview]:
    """Returns the bytes of each range, read with as few requests as pay and many at a time.

    A request is for at most 8 MiB, so that a large range is read by several of them at a time.

    Raises:
      ObjectChangedError: if an object is missing, has been written to, or ends too early.
      StorageError: if the bucket cannot be reached, after the repetitions of gcsfs.
    """
    parts = [list(_divided(each)) for each in ranges]
    contents = iter(_read_small([part for of_range in parts for part in of_range]))
    return [
        next(contents)
        if len(of_range) == 1
        else memoryview(b"".join(itertools.islice(contents, len(of_range))))
        for of_range in parts
    ]


def _divided(whole: ByteRange) -> Iterator[ByteRange]:
    """Yields the range in parts that are not larger than a request may be, at least one."""
    for start in range(whole.start, max(whole.stop, whole.start + 1), _REQUEST_BYTES):
        yield ByteRange(whole.source, start, min(start + _REQUEST_BYTES, whole.stop))


def _read_small(ranges: Sequence[ByteRange]) -> list[memoryview]:
    """Does what `read_ranges` does for ranges of at most the size of a request."""
    groups = _grouped(ranges)
    if not groups:
        return []
    sources = [ranges[group[0]].source for group in groups]
    starts = [ranges[group[0]].start for group in groups]
    stops = [max(ranges[i].stop for i in group) for group in groups]
    with _reading(sources[0].path):
        answers = _storage().cat_ranges(
            # A read of this generation fails once the object has another.
            [f"{_key(each.path)}#{each.generation}" for each in sources],
            starts,
            stops,
            batch_size=_REQUESTS_AT_ONCE,
            on_error="return",
        )
    result = [memoryview(b"")] * len(ranges)
    for group, source, start, stop, answer in zip(
        groups, sources, starts, stops, answers, strict=True
    ):
        if isinstance(answer, FileNotFoundError):
            raise ObjectChangedError(source, _change(source))
        with _reading(source.path):
            if isinstance(answer, BaseException):
                raise answer
        if len(answer) != stop - start:
            raise ObjectChangedError(source, "ended too early")
        for i in group:
            result[i] = memoryview(answer)[ranges[i].start - start : ranges[i].stop - start]
    return result


def read_blocks(source: StoredObject) -> Iterator[memoryview]:
    """Yields the whole content of an object in blocks, a few of which are read at a time.

    Raises:
      ObjectChangedError, StorageError: as `read_ranges` does.
    """
    together = 4 * _REQUEST_BYTES
    for first in range(0, source.size, together):
        last = min(first + together, source.size)
        yield from _read_small(list(_divided(ByteRange(source, first, last))))


def _grouped(ranges: Sequence[ByteRange]) -> list[list[int]]:
    """Returns the numbers of the ranges that each request covers."""
    groups: list[list[int]] = []
    stop = 0
    order = sorted(range(len(ranges)), key=lambda i: (str(ranges[i].source.path), ranges[i].start))
    for i in order:
        each = ranges[i]
        first = ranges[groups[-1][0]] if groups else None
        if (
            first is not None
            and first.source == each.source
            and each.start - stop <= _GAP_BYTES
            and max(stop, each.stop) - first.start <= _REQUEST_BYTES
        ):
            groups[-1].append(i)
            stop = max(stop, each.stop)
        else:
            groups.append([i])
            stop = each.stop
    return groups


def _change(source: StoredObject) -> str:
    """Returns what has happened to an object that has lost its generation."""
    now = list_objects(source.path.parent).get(source.name)
    if now is None:
        return "is missing"
    if now.size != source.size:
        return f"has changed: it had {source.size:,} bytes and has {now.size:,}"
    return "has changed: it was written to since the run began"


def _storage() -> Any:
    """Returns the storage, whose listings are always new, and which reads given generations."""
    gcsfs = import_extra("gcsfs", extra="gcs", needed_by="gs://")
    return gcsfs.GCSFileSystem(use_listings_cache=False, version_aware=True)


def _key(path: Path) -> str:
    return os.fspath(path).removeprefix("gs://")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises what gcsfs and the libraries below it raise in the block as StorageError.

    Only FileNotFoundError passes: their errors have no other common base class.
    """
    try:
        yield
    except (FileNotFoundError, Gpt2JaxError):
        raise
    except Exception as error:
        raise StorageError(
            f"cannot read {path} ({type(error).__name__}: {shortened(error_text(error), 200)}): "
            "check the network and the credentials, and run the same command again"
        ) from error
