"""Files of plain text: a file is one document."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from typing import IO

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.compression import open_file
from gpt2_jax.prepare.pieces import Piece, first_border, split_text
from gpt2_jax.prepare.slices import Slice
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_BLOCK = 1 << 20
_BORDER_BLOCK = 1 << 16


def read(file_slice: Slice, tokenizer: Tokenizer, text_field: str) -> Iterator[Piece]:
    """Yields the text of a range of bytes, from the border near its start to that near its end.

    Raises:
      UserError: naming the byte, if the text is not UTF-8 or has no border for too long.
    """
    with open_file(file_slice.path, file_slice.compression) as file:
        start, stop = file_slice.start, sys.maxsize
        if not file_slice.compression:
            end = file_slice.stop if file_slice.stop >= 0 else file_slice.size
            start = _border_near(file, file_slice, file_slice.start, tokenizer)
            stop = _border_near(file, file_slice, end, tokenizer)
            file.seek(start)
        begins = start == 0
        for text in split_text(_decoded(file, file_slice, start, stop), tokenizer, file_slice.path):
            yield Piece(file_slice.path, text, begins)
            begins = False


def _border_near(file: IO[bytes], file_slice: Slice, at: int, tokenizer: Tokenizer) -> int:
    """Returns the first byte from `at` where the text may be cut, or the file's size."""
    if at == 0 or at >= file_slice.size:
        return at
    file.seek(at)
    # A character of UTF-8 has at most three bytes after its first, which begin with bits 10.
    head = file.read(4)
    at += next((i for i, byte in enumerate(head) if byte & 0xC0 != 0x80), len(head))
    file.seek(at)
    texts = _decoded(file, file_slice, at, file_slice.size, block_bytes=_BORDER_BLOCK)
    distance = first_border(texts, tokenizer, f"{file_slice.path} from byte {at} on")
    return file_slice.size if distance is None else at + distance


def _decoded(
    file: IO[bytes], file_slice: Slice, start: int, stop: int, block_bytes: int = _BLOCK
) -> Iterator[str]:
    """Yields the text of bytes start .. stop-1; the file must be positioned at `start`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, block = start, b"-"
    while block:
        block = file.read(min(block_bytes, stop - position))
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            byte = position + len(block) - len(error.object) + error.start
            decompressed = "decompressed " if file_slice.compression else ""
            raise UserError(
                f"{file_slice.path} is not UTF-8 text: {decompressed}byte {byte} is "
                f"0x{error.object[error.start]:02x}; convert it, for example with iconv -t UTF-8"
            ) from None
        position += len(block)
        yield text
