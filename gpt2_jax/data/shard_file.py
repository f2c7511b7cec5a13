"""One file of tokens: how it is written, what is checked when it is found, how it is read.

A shard is 256 little-endian int32 (magic 20240520, version 1, token count, zeros), then that many
little-endian uint16: the format of llm.c's GPT-2 data and of the public FineWeb shards. nanoGPT's
`train.bin` and `val.bin`, which have no header, are read too. Nothing here imports JAX.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gpt2_jax.errors import UserError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_DTYPE = np.dtype("<u2")
MAX_VOCAB_SIZE = 2**16
# What else llm.c writes with a header of this kind.
_OTHER_MAGIC = {
    20240801: "Llama 3 tokens, uint32",
    20240522: "multiple-choice questions of an evaluation",
}
# nanoGPT's names; any other file must start with the header.
_HEADERLESS = ("train.bin", "val.bin")
# Fewer tokens do not tell one type of integers from another.
_FEW = 64


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A file of tokens, as it was when `open_shard` looked at it.

    It is opened anew for every read. Were it mapped, a file that is cut off meanwhile would kill
    the process with SIGBUS; mapped or held open, a thousand shards would need as many descriptors.

    Attributes:
      path: the file.
      tokens: how many it holds.
      start: bytes before the first of them.
      size, mtime_ns: of the whole file; another size or time later is an error.
    """

    path: Path
    tokens: int
    start: int
    size: int
    mtime_ns: int

    def __len__(self) -> int:
        """Tokens in the file."""
        return self.tokens

    def fill(self, wanted: Iterable[tuple[int, np.ndarray]]) -> None:
        """Fills each contiguous uint16 array with the tokens from the index beside it on.

        Raises:
          UserError: for a file that is gone or not what it was; the arrays are of no use then.
        """
        whole = True
        try:
            with open(self.path, "rb", buffering=0) as file:
                for first, array in wanted:
                    offset = self.start + first * TOKEN_DTYPE.itemsize
                    whole &= _read_at(file.fileno(), array, offset)
                # After the reads: what changed in the middle of them shows, too.
                now = os.fstat(file.fileno())
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            raise self._lost("is gone" if gone else f"cannot be read: {error.strerror}") from None
        if now.st_size != self.size:
            raise self._lost(f"has changed: it had {self.size:,} bytes and has {now.st_size:,}")
        if now.st_mtime_ns != self.mtime_ns:
            when = datetime.datetime.fromtimestamp(now.st_mtime).isoformat(" ", "seconds")
            raise self._lost(f"has changed: it was written to at {when}")
        if not whole:
            raise self._lost("ended too early")

    def _lost(self, what: str) -> UserError:
        return UserError(
            f"{self.path}, whose tokens are being read, {what}; put it back as it was and run the "
            "same command again"
        )


def _read_at(file: int, array: np.ndarray, offset: int) -> bool:
    """Fills the array; False where the file ends before."""
    rest = array.view(np.uint8).data
    # One call reads 2 GiB at most, and nothing at the end of the file.
    while len(rest) and (count := os.preadv(file, [rest], offset)):
        rest, offset = rest[count:], offset + count
    return not len(rest)


def open_shard(path: Path) -> ShardFile:
    """Looks at a file: its header, if it has one, must agree with its size.

    Raises:
      UserError: for a file that cannot be read or is no shard.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for someone to write to it
            raise UserError(f"{path} is not a file that can be read: take it away, or copy it anew")
        with open(path, "rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise UserError(f"{path} is empty: make it anew with gpt2-jax prepare")
    start = _header_bytes(path, stat.st_size, head)
    tokens = (stat.st_size - start) // TOKEN_DTYPE.itemsize
    return ShardFile(path, tokens, start, stat.st_size, stat.st_mtime_ns)


def _header_bytes(path: Path, size: int, head: bytes) -> int:
    """Bytes before the first token: 0 for nanoGPT's files."""
    header = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    magic = int(header[0]) if len(header) else None
    if magic in _OTHER_MAGIC:
        raise UserError(
            f"{path} is no GPT-2 data: its header says {_OTHER_MAGIC[magic]} (llm.c's {magic}); "
            "prepare the text with gpt2-jax prepare, or take the file away"
        )
    if magic != MAGIC:
        _check_headerless(path, size, head)
        return 0
    if len(header) < 256:
        raise UserError(f"{path} is cut off in its header: {size} bytes; make or copy it anew")
    version, count = int(header[1]), int(header[2])
    if version != VERSION:
        raise UserError(f"{path} has version {version} of the shard format; only 1 is known")
    if count < 1:
        raise UserError(f"{path} holds {count} tokens by its header: make or copy it anew")
    expected = HEADER_BYTES + count * TOKEN_DTYPE.itemsize
    if size != expected:
        raise UserError(
            f"{path} is corrupt: {count} tokens by its header are {expected} bytes, the file has "
            f"{size}; make or copy it anew"
        )
    return HEADER_BYTES


def _check_headerless(path: Path, size: int, head: bytes) -> None:
    if path.name not in _HEADERLESS:
        raise UserError(
            f"{path} is not a token shard: it does not start with {MAGIC} (only nanoGPT's "
            "train.bin and val.bin may have no header)"
        )
    if size % TOKEN_DTYPE.itemsize:
        raise UserError(f"{path} has an odd size, {size} bytes: it is no array of uint16")
    # Of wider integers, the upper half of each would pass for a token 0.
    tokens = np.frombuffer(head, TOKEN_DTYPE)
    if len(tokens) >= _FEW and tokens.any() and not tokens[1::2].any():
        raise UserError(
            f"{path} is an array of integers of 4 bytes or more (every second uint16 is 0): write "
            "its tokens as uint16, as nanoGPT does"
        )


def write_shard(path: str | Path, arrays: Iterable[np.ndarray], count: int) -> str:
    """Writes one shard and returns its sha256.

    Args:
      path: the file; it is whole only once this returns.
      arrays: the tokens [n_i] in order, each id below 65536.
      count: tokens in all of them.

    Raises:
      UserError: for ids that uint16 cannot hold.
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
