"""A corpus as parts: what one task encodes, cut the same way whoever runs the tasks.

A part holds about `part_bytes` of files: a few small ones, a slice of a big one, or one compressed
file whatever its size, because that cannot be entered in the middle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.parquet import row_groups
from gpt2_jax.prepare.pieces import Text, whole
from gpt2_jax.prepare.readers import Slice, read_slice
from gpt2_jax.tokenizers.tokenizer import Tokenizer

PART_BYTES = 1 << 24

# How a file is read, by its name; any other file is plain text.
FORMATS = {".txt": "text", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}


class Part(Protocol):
    """One task's share of a corpus; it travels to other processes."""

    @property
    def pinned(self) -> bool:
        """Whether the identity fixes the content, so that it need not be read to be compared."""
        ...

    def texts(self, tokenizer: Tokenizer) -> Iterator[Text]:
        """The documents in pieces, in order; UserError for what cannot be read."""
        ...

    def identity(self) -> Any:
        """Plain values that change whenever the content may have."""
        ...


@dataclasses.dataclass(frozen=True)
class Document:
    """One text, and the name that messages call it by."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class DocumentsPart:
    """Documents in memory."""

    documents: tuple[Document, ...]
    pinned: bool = False

    def texts(self, tokenizer: Tokenizer) -> Iterator[Text]:
        """The documents in pieces."""
        return whole(((each.name, each.text) for each in self.documents), tokenizer)

    def identity(self) -> Any:
        """The sum of all texts."""
        digest = hashlib.sha256()
        for document in self.documents:
            content = document.text.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little") + content)
        return {"documents": digest.hexdigest()}


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Slices of files."""

    slices: tuple[Slice, ...]
    text_field: str
    pinned: bool = False

    def texts(self, tokenizer: Tokenizer) -> Iterator[Text]:
        """The documents of each slice in pieces."""
        for part in self.slices:
            yield from read_slice(part, tokenizer, self.text_field)

    def identity(self) -> Any:
        """Paths, sizes, times and places."""
        return {"files": [dataclasses.astuple(part) for part in self.slices], "of": self.text_field}


def documents_in_parts(documents: Iterable[Document], part_bytes: int) -> Iterator[DocumentsPart]:
    """Consecutive documents of about `part_bytes` characters together."""
    group: list[Document] = []
    size = 0
    for document in documents:
        if group and size + len(document.text) > part_bytes:
            yield DocumentsPart(tuple(group))
            group, size = [], 0
        group.append(document)
        size += len(document.text)
    if group:
        yield DocumentsPart(tuple(group))


def files_in_parts(files: Sequence[Path], part_bytes: int, text_field: str) -> Iterator[FilePart]:
    """Consecutive files, or slices of them, of at most `part_bytes` together where that can be.

    Raises:
      UserError: for a file that cannot be looked at.
    """
    group: list[Slice] = []
    size = 0
    for file in files:
        for part, part_size in _slices(file, part_bytes):
            if group and size + part_size > part_bytes:
                yield FilePart(tuple(group), text_field)
                group, size = [], 0
            group.append(part)
            size += part_size
    if group:
        yield FilePart(tuple(group), text_field)


def key(part: Part, tokenizer: str) -> str:
    """A name for the tokens of a part: another content or tokenizer has another."""
    described = json.dumps([tokenizer, part.identity()])
    return hashlib.sha256(described.encode()).hexdigest()[:32]


def _slices(file: Path, part_bytes: int) -> Iterator[tuple[Slice, int]]:
    """A file's slices and their sizes."""
    path = os.path.abspath(file)
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    stem, suffix = os.path.splitext(path.lower())
    compression = COMPRESSIONS.get(suffix, "")
    if compression:
        suffix = os.path.splitext(stem)[1]
    whole_file = Slice(
        path, FORMATS.get(suffix, "text"), compression, stat.st_size, stat.st_mtime_ns
    )
    if compression or stat.st_size <= part_bytes:
        yield whole_file, stat.st_size
    elif whole_file.format == "parquet":
        sizes = row_groups(path)
        for i, size in enumerate(sizes):
            yield dataclasses.replace(whole_file, start=i, stop=i + 1), size
    else:
        count = -(-stat.st_size // part_bytes)
        for i in range(count):
            start, stop = stat.st_size * i // count, stat.st_size * (i + 1) // count
            yield dataclasses.replace(whole_file, start=start, stop=stop), stop - start
