"""Compressed files as streams of bytes; a stream that ends too early is an error."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.pieces import extra

# Compressed bytes taken at a time: text may be a thousand times as long.
_BLOCK = 1 << 14


@contextlib.contextmanager
def opened(path: str, compression: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Args:
      compression: "", "gz" or "zst".

    Raises:
      UserError: while reading, for a file that is damaged or cut off.
    """
    with open(path, "rb") as raw:
        try:
            if compression == "zst":
                yield io.BufferedReader(_Zstd(raw, extra("data", "zstandard", f"reading {path}")))
            else:
                yield gzip.GzipFile(fileobj=raw) if compression == "gz" else raw  # type: ignore
        except (EOFError, zlib.error, gzip.BadGzipFile, _Damaged) as error:
            raise UserError(f"{path} is damaged or no {compression} file: {error}") from None


class _Damaged(Exception):
    """The content of a compressed file is not what it should be."""


class _Zstd(io.RawIOBase):
    """The frames of a zstd file one after the other.

    zstandard's own reader takes a file that was cut off for one that ends there.
    """

    def __init__(self, raw: IO[bytes], zstandard: Any) -> None:
        self._raw, self._zstandard = raw, zstandard
        self._frame: Any = None
        self._input, self._output = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._raw.read(_BLOCK)
            if not self._input and self._frame is not None:
                raise _Damaged("it ends too early")
            if not self._input:
                return 0
            self._decompress()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        self._frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except self._zstandard.ZstdError as error:
            raise _Damaged(str(error)) from None
        self._input = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
