"""A corpus as work items: what one task encodes, cut the same way whoever runs the tasks.

A work item holds about `item_bytes` of files: a few small files, a slice of a big one, or one
compressed file whatever its size, because that can only be read from its start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt2_jax.prepare.formats import read_slice, slices_of
from gpt2_jax.prepare.pieces import Piece, refuse_invalid, split_documents
from gpt2_jax.prepare.slices import Slice
from gpt2_jax.tokenizers.tokenizer import Tokenizer

WORK_ITEM_BYTES = 1 << 24


class Identified(Protocol):
    """What has an identity."""

    def identity(self) -> Any:
        """Returns plain values that change whenever the content may have changed."""
        ...


class WorkItem(Protocol):
    """One task's share of a corpus, which can be sent to other processes."""

    @property
    def pinned(self) -> bool:
        """Tells whether the identity fixes the content, so that comparing it needs no reading."""
        ...

    @property
    def skip_invalid(self) -> bool:
        """Tells whether rows without valid text are left out; otherwise they are an error."""
        ...

    def pieces(self, tokenizer: Tokenizer) -> Iterator[Piece]:
        """Yields the documents in pieces, in order; raises UserError for what cannot be read.

        A piece with a problem is a row to leave out and count, which has no text.
        """
        ...

    def identity(self) -> Any:
        """Returns plain values that change whenever the content may have changed."""
        ...


@dataclasses.dataclass(frozen=True)
class Document:
    """Holds a text and the name that messages call it by."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class DocumentsItem:
    """Holds documents in memory."""

    documents: tuple[Document, ...]
    pinned: bool = False
    skip_invalid: bool = False

    def pieces(self, tokenizer: Tokenizer) -> Iterator[Piece]:
        """Yields the documents in pieces."""
        return split_documents(((each.name, each.text) for each in self.documents), tokenizer)

    def identity(self) -> Any:
        """Returns the sha256 of all texts."""
        digest = hashlib.sha256()
        for document in self.documents:
            content = document.text.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little") + content)
        return {"documents": digest.hexdigest()}


@dataclasses.dataclass(frozen=True)
class FilesItem:
    """Names slices of files, which are read where the task runs."""

    slices: tuple[Slice, ...]
    text_field: str
    pinned: bool = False
    skip_invalid: bool = False

    def pieces(self, tokenizer: Tokenizer) -> Iterator[Piece]:
        """Yields the documents of each slice in pieces, and with them rows to leave out."""
        for each in self.slices:
            pieces = read_slice(each, tokenizer, self.text_field)
            yield from refuse_invalid(pieces, self.skip_invalid)

    def identity(self) -> Any:
        """Returns the paths, sizes and times of the files, and which slices of them are meant."""
        described = {
            "files": [dataclasses.astuple(each) for each in self.slices],
            "of": self.text_field,
        }
        return described | ({"skip_invalid": True} if self.skip_invalid else {})


def documents_items(documents: Iterable[Document], item_bytes: int) -> Iterator[DocumentsItem]:
    """Yields work items of consecutive documents, each of about `item_bytes` characters."""
    group: list[Document] = []
    size = 0
    for document in documents:
        if group and size + len(document.text) > item_bytes:
            yield DocumentsItem(tuple(group))
            group, size = [], 0
        group.append(document)
        size += len(document.text)
    if group:
        yield DocumentsItem(tuple(group))


def files_items(
    files: Sequence[Path], item_bytes: int, text_field: str, skip_invalid: bool = False
) -> Iterator[FilesItem]:
    """Yields work items of consecutive files, or slices of them, of at most `item_bytes`.

    Only what cannot be split, such as a compressed file, makes a work item larger.

    Raises:
      UserError: if a file cannot be read.
    """
    for group in grouped_slices(files, item_bytes):
        yield FilesItem(group, text_field, skip_invalid=skip_invalid)


def grouped_slices(files: Sequence[Path], item_bytes: int) -> Iterator[tuple[Slice, ...]]:
    """Yields the slices of consecutive files that make up each work item; see `files_items`."""
    group: list[Slice] = []
    size = 0
    for file in files:
        for file_slice, slice_bytes in slices_of(file, item_bytes):
            if group and size + slice_bytes > item_bytes:
                yield tuple(group)
                group, size = [], 0
            group.append(file_slice)
            size += slice_bytes
    if group:
        yield tuple(group)


def item_key(item: Identified, tokenizer: str) -> str:
    """Returns the name of the files with an item's tokens, which depends on all that they do.

    Args:
      item: what is encoded.
      tokenizer: JSON of `Tokenizer.to_dict()`.
    """
    described = json.dumps([tokenizer, item.identity()])
    return hashlib.sha256(described.encode()).hexdigest()[:32]
