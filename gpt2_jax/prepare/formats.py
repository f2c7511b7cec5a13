"""The input formats that `prepare` reads: everything else iterates over the table `FORMATS`.

To add a format, write its reader in a file of its own (a function that splits a big file, if bytes
are not the unit, and one that yields the pieces of a slice) and give it an entry in `FORMATS`.
Names of files, folders, help and messages follow from the entry.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import json_lines, parquet, plain_text
from gpt2_jax.prepare.compression import COMPRESSIONS
from gpt2_jax.prepare.pieces import Piece
from gpt2_jax.prepare.slices import Range, Slice, byte_ranges, check_unchanged, listed_stat, reading
from gpt2_jax.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class InputFormat:
    """Declares how the files of one format are recognized, split and read.

    Attributes:
      name: identifies the format in slices, and therefore must not change.
      title: what help and messages call the format.
      document: the unit of such a file that is one document.
      suffixes: endings of the files that are taken from a folder.
      read: yields the pieces of a slice; takes the slice, the tokenizer and the text field.
      split: divides a big file; takes its path, its size and the bytes that a slice should have.
      named_suffixes: endings of files that are of this format, but are taken only if named.
      compressible: whether such a file may be compressed as a whole.
    """

    name: str
    title: str
    document: str
    suffixes: tuple[str, ...]
    read: Callable[[Slice, Tokenizer, str], Iterator[Piece]]
    split: Callable[[str, int, int], Sequence[Range]] = byte_ranges
    named_suffixes: tuple[str, ...] = ()
    compressible: bool = True


PLAIN_TEXT = InputFormat("text", "plain text", "file", (".txt",), plain_text.read)
"""The format of every file whose name says nothing else."""

FORMATS = (
    PLAIN_TEXT,
    InputFormat(
        "jsonl", "JSON lines", "line", (".jsonl",), json_lines.read, named_suffixes=(".json",)
    ),
    InputFormat(
        "parquet",
        "Parquet",
        "row",
        (".parquet",),
        parquet.read,
        split=parquet.row_group_ranges,
        compressible=False,
    ),
)

FOLDER_SUFFIXES = tuple(
    suffix + compression
    for each in FORMATS
    for suffix in each.suffixes
    for compression in ("", *(COMPRESSIONS if each.compressible else ()))
)
"""Endings of the files that are taken from a folder."""


def describe_formats() -> str:
    """Returns the formats and compressions for help."""
    titles = [f"{each.title} (each {each.document} is a document)" for each in FORMATS]
    return f"{_listed(titles, 'or')}; {_listed([*COMPRESSIONS], 'and')} files are decompressed"


def describe_folder_files() -> str:
    """Returns the patterns of the files that are taken from a folder, for messages."""
    patterns = [f"*{suffix}" for each in FORMATS for suffix in each.suffixes]
    packed = [f"*{suffix}" for each in FORMATS if each.compressible for suffix in each.suffixes]
    return (
        f"{_listed(patterns, 'or')} file ({_listed(packed, 'and')} also with "
        f"{_listed([*COMPRESSIONS], 'or')})"
    )


def slices_of(file: str | os.PathLike[str], slice_bytes: int) -> Iterator[tuple[Slice, int]]:
    """Yields the slices of a file and the bytes of each, at most about `slice_bytes`.

    A compressed file is one slice whatever its size, because it can only be read from its start.

    Raises:
      UserError: if the file cannot be read, is not a regular file, is a Git LFS pointer, or has a
        compression that its format does not allow.
    """
    path = os.path.abspath(file)
    input_format, compression = _identify(path)
    stat = listed_stat(path)
    whole_file = Slice(path, input_format.name, compression, stat.st_size, stat.st_mtime_ns)
    if compression or stat.st_size <= slice_bytes:
        yield whole_file, stat.st_size
        return
    for start, stop, size in input_format.split(path, stat.st_size, slice_bytes):
        yield dataclasses.replace(whole_file, start=start, stop=stop), size


def is_plain_text(file: str | os.PathLike[str]) -> bool:
    """Returns whether a file's name says that it is one document instead of rows of them."""
    return _identify(os.fspath(file))[0] is PLAIN_TEXT


def read_slice(file_slice: Slice, tokenizer: Tokenizer, text_field: str) -> Iterator[Piece]:
    """Yields the slice's documents in pieces that can be encoded one by one.

    Args:
      file_slice: what to read.
      tokenizer: decides where a text may be cut, and with it where slices of plain text end.
      text_field: the field or column with the text.

    Raises:
      UserError: naming the file, and the line, row or byte, for what cannot be read or is not
        text; also if the file has changed since it was listed.
    """
    (input_format,) = [each for each in FORMATS if each.name == file_slice.format]
    with reading(file_slice):
        for piece in input_format.read(file_slice, tokenizer, text_field):
            if piece.problem:
                check_unchanged(file_slice)
            yield piece


def _identify(path: str) -> tuple[InputFormat, str]:
    """Returns the format and the name of the compression that a file's name says."""
    stem, suffix = os.path.splitext(path.lower())
    compression = COMPRESSIONS[suffix].name if suffix in COMPRESSIONS else ""
    if compression:
        suffix = os.path.splitext(stem)[1]
    for each in FORMATS:
        if suffix in each.suffixes + each.named_suffixes:
            if compression and not each.compressible:
                raise UserError(
                    f"{path}: a {each.title} file cannot be compressed as a whole; decompress it"
                )
            return each, compression
    return PLAIN_TEXT, compression


def _listed(words: Sequence[str], conjunction: str) -> str:
    """Returns `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last
