"""Files of JSON lines: the text of each line's object is one document, or all of it one example."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from gpt2_jax.errors import shortened
from gpt2_jax.prepare.compression import open_file
from gpt2_jax.prepare.pieces import InvalidRowError, Piece, checked_text, split_documents
from gpt2_jax.prepare.slices import Slice
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 27


def read(file_slice: Slice, tokenizer: Tokenizer, text_field: str) -> Iterator[Piece]:
    """Yields the texts of the lines that begin in a range of bytes.

    A line that is not an object with a string as its text field is yielded as an invalid row.
    """
    yield from split_documents(_texts(file_slice, text_field), tokenizer)


def _texts(file_slice: Slice, field: str) -> Iterator[tuple[str, str | InvalidRowError]]:
    for line in read_objects(file_slice):
        if line.problem is not None:
            yield line.where, line.problem
        elif line.values is not None:
            yield line.where, _text_or_error(line.values, field)


class Line(NamedTuple):
    """Holds the object of a line, or what is wrong with the line; a blank line has neither."""

    where: str
    """Names the file and the line in messages."""
    number: int
    """The number of the line, from 1, among those that begin in the slice."""
    values: dict[str, Any] | None = None
    problem: InvalidRowError | None = None


def read_objects(file_slice: Slice) -> Iterator[Line]:
    """Yields the lines that begin in a range of bytes."""
    with open_file(file_slice.path, file_slice.compression) as file:
        for where, number, content in _lines(file, file_slice):
            try:
                if isinstance(content, InvalidRowError):
                    raise content
                yield Line(where, number, _object(content) if content.strip() else None)
            except InvalidRowError as error:
                yield Line(where, number, problem=error)


def _lines(
    file: IO[bytes], file_slice: Slice
) -> Iterator[tuple[str, int, bytes | InvalidRowError]]:
    """Yields a name for messages, a number and the bytes of each line that begins in the slice."""
    position, number = file_slice.start, 0
    if file_slice.start:
        # The line that contains the byte before the slice belongs to the slice before.
        file.seek(file_slice.start - 1)
        position += _skip_line(file) - 1
    while file_slice.stop < 0 or position < file_slice.stop:
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        number += 1
        # Only the slice at the start of a file can count its lines.
        place = f"the line at byte {position}" if file_slice.start else f"line {number}"
        where = f"{file_slice.path}, {place}"
        first = position == 0
        position += len(line)
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            position += _skip_line(file)
            problem = f"is longer than {_LONGEST_LINE >> 20} MiB: divide it"
            yield where, number, InvalidRowError(problem)
            continue
        if first:  # some programs precede it with a mark
            line = line.removeprefix(codecs.BOM_UTF8)
        yield where, number, line


def _skip_line(file: IO[bytes]) -> int:
    """Reads to the end of a line, in bounded memory, and returns the number of bytes read."""
    count = 0
    while block := file.readline(_BLOCK):
        count += len(block)
        if block.endswith(b"\n"):
            break
    return count


def _object(line: bytes) -> dict[str, Any]:
    """Returns a line's object; raises InvalidRowError if there is none."""
    if line.lstrip().startswith(b"["):
        raise InvalidRowError("begins a JSON array: write one object per line, as jq -c '.[]' does")
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRowError(f"is not UTF-8 at its byte {error.start}: convert it") from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise InvalidRowError(
            f"is not JSON: {reason}; each line must be a complete object"
        ) from None
    if not isinstance(values, dict):
        raise InvalidRowError(f"is {shortened(repr(values), 40)}: each line must be an object")
    return values


def _text_or_error(values: dict[str, Any], field: str) -> str | InvalidRowError:
    """Returns the text in an object, or what is wrong with it."""
    try:
        return _text(values, field)
    except InvalidRowError as error:
        return error


def _text(values: dict[str, Any], field: str) -> str:
    if field not in values:
        raise InvalidRowError(
            f"has no field {field!r} (its fields: {shortened(', '.join(values), 80)}); "
            "name it with --text_field"
        )
    return checked_text(values[field], field)
