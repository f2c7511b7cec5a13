"""Slices of files as pieces of text: plain text, JSON lines and Parquet.

A slice of a plain file is a range of bytes, of a Parquet file a range of row groups; what is
compressed is read whole. Neighbouring slices agree on where one ends and the next begins without
talking to each other, so that any process can read any slice.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import IO

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.prepare import parquet
from gpt2_jax.prepare.compression import opened
from gpt2_jax.prepare.pieces import Text, checked_text, first_border, pieces, whole
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 27


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """A part of a file, as it was when the corpus was looked through.

    Attributes:
      path: absolute.
      format: "text", "jsonl" or "parquet".
      compression: "", "gz" or "zst".
      size, mtime_ns: of the whole file; another size or time later is an error.
      start, stop: bytes, or row groups of a Parquet file; stop -1 is the end.
    """

    path: str
    format: str
    compression: str
    size: int
    mtime_ns: int
    start: int = 0
    stop: int = -1


def read_slice(part: Slice, tokenizer: Tokenizer, text_field: str) -> Iterator[Text]:
    """The slice's documents in pieces that can be encoded one by one.

    Args:
      tokenizer: says where a text may be cut; a cut decides where slices of plain text end, too.
      text_field: the field or column with the text.

    Raises:
      UserError: naming the file, and the line or byte, for what cannot be read or is no text, and
        for a file that is not what it was.
    """
    _check_unchanged(part)
    try:
        if part.format == "parquet":
            rows = parquet.rows(part.path, part.start, part.stop, text_field)
            yield from whole(rows, tokenizer)
        else:
            with opened(part.path, part.compression) as file:
                if part.format == "jsonl":
                    yield from whole(_json_lines(file, part, text_field), tokenizer)
                else:
                    yield from _plain_text(file, part, tokenizer)
    except (OSError, UserError) as error:
        _check_unchanged(part)  # what was written to meanwhile may look damaged
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {part.path}: {error.strerror or error}") from None
    _check_unchanged(part)


def _check_unchanged(part: Slice) -> None:
    try:
        now = os.stat(part.path)
    except OSError as error:
        raise UserError(f"cannot read {part.path}: {error.strerror}") from None
    if (now.st_size, now.st_mtime_ns) != (part.size, part.mtime_ns):
        raise UserError(
            f"{part.path} changed while it was being prepared: run the same command again when it "
            "is whole"
        )


def _plain_text(file: IO[bytes], part: Slice, tokenizer: Tokenizer) -> Iterator[Text]:
    start, stop = part.start, sys.maxsize
    if not part.compression:
        start = _border_near(file, part, part.start, tokenizer)
        stop = _border_near(file, part, part.stop if part.stop >= 0 else part.size, tokenizer)
        file.seek(start)
    begins = start == 0
    where = part.path
    for text in pieces(_decoded(file, part, start, stop), tokenizer, where):
        yield Text(where, text, begins)
        begins = False


def _border_near(file: IO[bytes], part: Slice, at: int, tokenizer: Tokenizer) -> int:
    """The first byte from `at` on where the text may be cut; the file's size if there is none."""
    if at == 0 or at >= part.size:
        return at
    file.seek(at)
    head = file.read(4)
    at += next((i for i, byte in enumerate(head) if byte & 0xC0 != 0x80), len(head))
    file.seek(at)
    texts = _decoded(file, part, at, part.size, block_bytes=1 << 16)
    before = first_border(texts, tokenizer, f"{part.path} from byte {at} on")
    return part.size if before is None else at + before


def _decoded(
    file: IO[bytes], part: Slice, start: int, stop: int, block_bytes: int = _BLOCK
) -> Iterator[str]:
    """The text of bytes start .. stop-1, from the file's current place, which is `start`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, block = start, b"-"
    while block:
        block = file.read(min(block_bytes, stop - position))
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            byte = position + len(block) - len(error.object) + error.start
            unpacked = "decompressed " if part.compression else ""
            raise UserError(
                f"{part.path} is not UTF-8 text: {unpacked}byte {byte} is "
                f"0x{error.object[error.start]:02x}; convert it, for example with iconv -t UTF-8"
            ) from None
        position += len(block)
        yield text


def _json_lines(file: IO[bytes], part: Slice, field: str) -> Iterator[tuple[str, str]]:
    """(where, text) of each line that begins in the slice."""
    position, number = part.start, 0
    if part.start:
        # The line that the byte before belongs to is the slice's before.
        file.seek(part.start - 1)
        position -= 1
        while line := file.readline(_BLOCK):
            position += len(line)
            if line.endswith(b"\n"):
                break
    while part.stop < 0 or position < part.stop:
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        number += 1
        place = f"the line at byte {position}" if part.start else f"line {number}"
        where = f"{part.path}, {place}"
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            raise UserError(f"{where}, is longer than {_LONGEST_LINE >> 20} MiB: divide it")
        position += len(line)
        if position == len(line):  # the file's first, before which some programs put a mark
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield where, _json_text(line, where, field)


def _json_text(line: bytes, where: str, field: str) -> str:
    if line.lstrip().startswith(b"["):
        raise UserError(
            f"{where}, begins a JSON array: write one object a line, as jq -c '.[]' does"
        )
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}, is not UTF-8: its byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise UserError(
            f"{where}, is not JSON: {reason}; each line must be a whole object"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{where}, is {shortened(repr(values), 40)}: each line must be an object")
    if field not in values:
        raise UserError(
            f"{where}, has no field {field!r} (its fields: {shortened(', '.join(values), 80)}); "
            "name it with --text_field"
        )
    return checked_text(values[field], where, field)
