"""Compressed files as streams of bytes, in which damage anywhere is an error.

A file may consist of several compressed streams one after the other. Python's `bz2.BZ2File` and
`lzma.LZMAFile`, and what fsspec makes of them, silently ignore everything from a damaged later
stream on; zstandard's reader takes a truncated file for a complete one. `_StreamReader` does
neither, and reads all of them. Python's reader of gzip detects all damage by itself.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.files.extras import import_extra

# Compressed bytes read at a time, since text may be a thousand times as long, and the most bytes
# that bzip2 and xz, whose ratio is higher still, may return at once.
_BLOCK = 1 << 14
_OUTPUT_BYTES = 1 << 20


class Compression(NamedTuple):
    """A compression that files may have."""

    name: str
    """Identifies the compression in slices, and therefore must not change."""
    open: Callable[[IO[bytes], str], IO[bytes]]
    """Takes the opened file and its path; returns the decompressed bytes."""


class DamagedError(Exception):
    """The content of a compressed file is not valid."""


@contextlib.contextmanager
def open_file(path: str, compression: str) -> Iterator[IO[bytes]]:
    """Opens a file for reading, decompressed.

    Args:
      path: the file.
      compression: the name of one of `COMPRESSIONS`, or "" for none.

    Raises:
      UserError: while reading, if the file is damaged or truncated.
    """
    with open(path, "rb") as raw:
        if not compression:
            yield raw
            return
        (opener,) = [each.open for each in COMPRESSIONS.values() if each.name == compression]
        try:
            if not raw.peek(1):
                raise DamagedError("the file is empty")
            yield opener(raw, path)
        except (EOFError, zlib.error, gzip.BadGzipFile, DamagedError) as error:
            raise UserError(
                f"{path} is damaged or not a {compression} file ({error}): copy or compress it "
                "again"
            ) from None


class _StreamReader(io.RawIOBase):
    """Reads the compressed streams of a file one after the other."""

    def __init__(
        self,
        raw: IO[bytes],
        start_stream: Callable[[], Any],
        errors: type[Exception],
        *,
        limited: bool = True,
        padding: bytes = b"",
    ) -> None:
        """Starts at the beginning of the file.

        Args:
          raw: the compressed file.
          start_stream: makes a decompressor with the interface of `bz2.BZ2Decompressor`.
          errors: what the decompressor raises for invalid data.
          limited: whether the decompressor can limit how much it returns at once.
          padding: the byte that may be repeated between streams, if any.
        """
        self._raw, self._start_stream, self._errors = raw, start_stream, errors
        self._limit = (_OUTPUT_BYTES,) if limited else ()
        self._padding = padding
        self._stream: Any = None
        self._between_streams = False
        self._input, self._output = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            # Without a stream, and for zstd, more output always takes more input.
            if not self._input and getattr(self._stream, "needs_input", True):
                self._input = self._raw.read(_BLOCK)
                if not self._input and self._stream is not None:
                    raise DamagedError("it ends too early")
                if not self._input:
                    return 0
            self._decompress()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        if self._stream is None:
            if self._between_streams:
                self._input = self._input.lstrip(self._padding)
                if not self._input:
                    return
            self._stream = self._start_stream()
        try:
            output = self._stream.decompress(self._input, *self._limit)
        except self._errors as error:
            raise DamagedError(str(error)) from None
        self._output, self._input = memoryview(output), b""
        if self._stream.eof:
            self._input = self._stream.unused_data
            self._stream, self._between_streams = None, True


def _open_gzip(raw: IO[bytes], path: str) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]


def _open_bzip2(raw: IO[bytes], path: str) -> IO[bytes]:
    # The decompressor raises a plain OSError for invalid data.
    return io.BufferedReader(_StreamReader(raw, bz2.BZ2Decompressor, OSError))


def _open_xz(raw: IO[bytes], path: str) -> IO[bytes]:
    def start_stream() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ)

    # The format allows null bytes between streams and after the last one.
    return io.BufferedReader(_StreamReader(raw, start_stream, lzma.LZMAError, padding=b"\0"))


def _open_zstd(raw: IO[bytes], path: str) -> IO[bytes]:
    zstandard = import_extra("zstandard", extra="data", needed_by=f"reading {path}")

    def start_stream() -> Any:
        return zstandard.ZstdDecompressor().decompressobj()

    return io.BufferedReader(_StreamReader(raw, start_stream, zstandard.ZstdError, limited=False))


COMPRESSIONS = {
    ".gz": Compression("gz", _open_gzip),
    ".bz2": Compression("bz2", _open_bzip2),
    ".xz": Compression("xz", _open_xz),
    ".zst": Compression("zst", _open_zstd),
}
"""The compressions by the ending of a file's name."""
