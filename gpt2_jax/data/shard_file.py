"""One file of tokens: how it is written, checked and read.

A shard is 256 little-endian int32 (magic 20240520, version 1, token count, zeros), then that many
little-endian uint16: the format of llm.c's GPT-2 data and of the public FineWeb shards. nanoGPT's
`train.bin` and `val.bin`, which have no header, are read too. Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.files.lfs import refuse_lfs_pointer

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_DTYPE = np.dtype("<u2")
MAX_VOCAB_SIZE = 2**16
# Magic numbers of other files that llm.c writes with such a header.
_OTHER_MAGIC = {
    20240801: "Llama 3 tokens, uint32",
    20240522: "multiple-choice questions of an evaluation",
}
# The names that nanoGPT uses; any other file must start with the header.
_HEADERLESS = ("train.bin", "val.bin")
# The most that one read asks for on a system without preadv.
_LARGEST_PREAD = 1 << 30
# With fewer tokens, the width of the integers cannot be determined.
_FEW = 64


Views = Sequence[tuple[int, np.ndarray]]
"""Pairs of the first token and a contiguous uint16 array to fill from there on."""


class Shard(Protocol):
    """Describes a file or an object of tokens, as it was when it was opened.

    Every method that reads raises UserError if it is missing or has changed since, and StorageError
    if a bucket cannot be reached.
    """

    @property
    def path(self) -> Path:
        """Returns the path, on a disk or in a bucket."""
        ...

    @property
    def size(self) -> int:
        """Returns the bytes of the whole file."""
        ...

    def __len__(self) -> int:
        """Returns the number of tokens."""
        ...

    def slices(self, starts: Sequence[int], length: int) -> Iterable[bytes | memoryview]:
        """Yields bytes start .. start+length-1 for each start, or up to the end."""
        ...

    def sha256(self) -> str:
        """Returns the sha256 of the whole file in hex."""
        ...

    @staticmethod
    def fill_all(wanted: Mapping[Any, Views]) -> None:
        """Fills arrays with tokens of shards of this kind; if this fails they are not valid."""
        ...


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """Describes a file of tokens, as it was when `open_shard` read its header.

    The file is opened again for every read. If it were mapped into memory, truncating it would kill
    the process with SIGBUS; if it stayed open, a thousand shards would need a thousand descriptors.

    Attributes:
      path: the file.
      tokens: number of tokens in it.
      start: bytes before the first token.
      size: bytes of the whole file; if it changes later, reading raises an error.
      mtime_ns: time of the last change; if it changes later, reading raises an error.
    """

    path: Path
    tokens: int
    start: int
    size: int
    mtime_ns: int

    def __len__(self) -> int:
        """Returns the number of tokens in the file."""
        return self.tokens

    @staticmethod
    def fill_all(wanted: Mapping[ShardFile, Views]) -> None:
        """Fills arrays with tokens, and opens each file once; see `Shard`."""
        for shard, views in wanted.items():
            shard.fill(views)

    def slices(self, starts: Sequence[int], length: int) -> Iterable[bytes]:
        """Yields bytes start .. start+length-1 for each start, or up to the end; see `Shard`."""
        try:
            with open(self.path, "rb") as file:
                for start in starts:
                    file.seek(start)
                    yield file.read(length)
        except OSError as error:
            raise _not_read(self.path, error) from None

    def sha256(self) -> str:
        """Returns the sha256 of the whole file in hex; see `Shard`."""
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _not_read(self.path, error) from None

    def fill(self, wanted: Views) -> None:
        """Fills arrays with tokens of this file alone; see `Shard`."""
        complete = True
        try:
            with open(self.path, "rb", buffering=0) as file:
                for first, array in wanted:
                    offset = self.start + first * TOKEN_DTYPE.itemsize
                    complete &= _read_at(file.fileno(), array, offset)
                # Comes after the reads, so that a change in the middle of them is noticed, too.
                now = os.fstat(file.fileno())
        except OSError as error:
            raise _not_read(self.path, error) from None
        if now.st_size != self.size:
            raise unreadable(
                self.path, f"has changed: it had {self.size:,} bytes and has {now.st_size:,}"
            )
        if now.st_mtime_ns != self.mtime_ns:
            when = datetime.datetime.fromtimestamp(now.st_mtime).isoformat(" ", "seconds")
            raise unreadable(self.path, f"has changed: it was written to at {when}")
        if not complete:
            raise unreadable(self.path, "ended too early")


def unreadable(path: Path, problem: str) -> UserError:
    """Returns the error for a shard with a problem such as `is missing`."""
    return UserError(
        f"{path}, whose tokens are being read, {problem}; restore it and run the same command again"
    )


def _not_read(path: Path, error: OSError) -> UserError:
    missing = isinstance(error, FileNotFoundError)
    return unreadable(path, "is missing" if missing else f"cannot be read: {error.strerror}")


def _read_at(file: int, array: np.ndarray, offset: int) -> bool:
    """Fills the array and returns whether the file has enough bytes for it."""
    rest = array.view(np.uint8).data
    # One call reads at most 2 GiB, and reads nothing at the end of the file.
    while len(rest) and (count := _read_some(file, rest, offset)):
        rest, offset = rest[count:], offset + count
    return not len(rest)


def _read_some(file: int, buffer: memoryview, offset: int) -> int:
    """Reads into the buffer from its start on; returns the number of bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], offset)
    # macOS before version 11 has only pread, which copies and refuses 2 GiB or more.
    content = os.pread(file, min(len(buffer), _LARGEST_PREAD), offset)
    buffer[: len(content)] = content
    return len(content)


def open_shard(path: Path) -> ShardFile:
    """Returns the description of a file, whose header, if any, must agree with its size.

    Raises:
      UserError: if the file cannot be read or is not a shard.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for someone to write to it
            raise UserError(f"{path} is not a regular file: remove it, or copy it again")
        with open(path, "rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    start = parse_header(path, stat.st_size, head)
    tokens = (stat.st_size - start) // TOKEN_DTYPE.itemsize
    return ShardFile(path, tokens, start, stat.st_size, stat.st_mtime_ns)


def parse_header(path: Path, size: int, head: bytes) -> int:
    """Returns the bytes before the first token, which are 0 for nanoGPT's files.

    Args:
      path: the shard, which messages name.
      size: the bytes of the shard.
      head: the first `HEADER_BYTES` of them, or all if it has fewer.

    Raises:
      UserError: if it is not a shard, or its size is not that in the header.
    """
    if not head:
        raise UserError(f"{path} is empty: make it again with gpt2-jax prepare")
    refuse_lfs_pointer(path, head)
    header = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    magic = int(header[0]) if len(header) else None
    if magic in _OTHER_MAGIC:
        raise UserError(
            f"{path} is not GPT-2 data: its header says {_OTHER_MAGIC[magic]} (llm.c's {magic}); "
            "prepare the text with gpt2-jax prepare, or remove the file"
        )
    if magic != MAGIC:
        _check_headerless(path, size, head)
        return 0
    if len(header) < 256:
        raise UserError(
            f"{path} is truncated in its header: it has {size} bytes; make or copy it again"
        )
    version, count = int(header[1]), int(header[2])
    if version != VERSION:
        raise UserError(
            f"{path} has version {version} of the shard format, but it must be 1: make it again"
        )
    if count < 1:
        raise UserError(f"{path} has {count} tokens according to its header: make or copy it again")
    expected = HEADER_BYTES + count * TOKEN_DTYPE.itemsize
    if size != expected:
        raise UserError(
            f"{path} is corrupt: it must have {expected} bytes for the {count} tokens of its "
            f"header, but has {size}; make or copy it again"
        )
    return HEADER_BYTES


def _check_headerless(path: Path, size: int, head: bytes) -> None:
    """Raises UserError if a file without a header cannot be nanoGPT's."""
    if path.name not in _HEADERLESS:
        raise UserError(
            f"{path} is not a token shard, because it does not start with {MAGIC} (only nanoGPT's "
            "train.bin and val.bin may have no header): remove it, or make it again"
        )
    if size % TOKEN_DTYPE.itemsize:
        raise UserError(
            f"{path} has an odd size, {size} bytes, but must be an array of uint16: make it again"
        )
    # In an array of wider integers, the upper half of each would be read as a token 0.
    tokens = np.frombuffer(head, TOKEN_DTYPE)
    if len(tokens) >= _FEW and tokens.any() and not tokens[1::2].any():
        raise UserError(
            f"{path} is an array of integers of 4 bytes or more (every second uint16 is 0): write "
            "its tokens as uint16, as nanoGPT does"
        )


def write_shard(path: str | Path, arrays: Iterable[np.ndarray], count: int) -> str:
    """Writes one shard and returns its sha256.

    Args:
      path: the file, which is complete only when this returns.
      arrays: the tokens [n_i] in order, each id below 65536.
      count: number of tokens in all arrays.

    Raises:
      UserError: if an id does not fit in uint16.
    """
    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, VERSION, count
    digest = hashlib.sha256(header.tobytes())
    written = 0
    with open(path, "wb") as file:
        file.write(header.tobytes())
        for tokens in arrays:
            if tokens.dtype != TOKEN_DTYPE:
                if len(tokens) and not 0 <= tokens.min() <= tokens.max() < MAX_VOCAB_SIZE:
                    raise UserError("token ids must be from 0 to 65535 to be stored as uint16")
                tokens = tokens.astype(TOKEN_DTYPE)
            content = np.ascontiguousarray(tokens).data
            digest.update(content)
            file.write(content)
            written += len(tokens)
        if written != count:
            raise ValueError(f"{path}: {written} tokens instead of {count}")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
