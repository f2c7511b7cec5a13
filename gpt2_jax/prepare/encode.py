"""What is done with one work item; each function can run in any process of any machine.

An item's tokens are in two files named by the item's key: `<key>.tokens`, uint16, and `<key>.json`,
which is written last. The same key always gives the same bytes, so two processes may safely encode
the same item.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import open_atomic, write_file
from gpt2_jax.prepare.pieces import Piece
from gpt2_jax.prepare.work_items import WorkItem, item_key
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict


class ItemTotals(NamedTuple):
    """Counts what a work item holds."""

    tokens: int
    bytes: int
    """Bytes of UTF-8 text."""
    documents: int
    """Documents that begin in the item."""
    sha256: str
    """The sum of its text and of where documents begin in it."""
    skipped: int = 0
    """Rows that were left out because they have no valid text."""


def encode_item(item: WorkItem, *, tokenizer: str, folder: str) -> ItemTotals:
    """Writes an item's tokens: those of each document after the tokenizer's end of text.

    Args:
      item: what to encode.
      tokenizer: JSON of `Tokenizer.to_dict()`.
      folder: the folder for the item's files.

    Raises:
      UserError: naming the text that cannot be read or encoded.
    """
    encoder, separator = _tokenizer(tokenizer)
    content = _Content(item)
    tokens, skipped, starts = 0, 0, []

    name = item_key(item, tokenizer)
    with open_atomic(Path(folder, f"{name}.tokens")) as file:
        for piece in item.pieces(encoder):
            if piece.problem:
                skipped += 1
                continue
            try:
                encoded = encoder.encode_array(piece.text)
            except UserError as error:
                raise UserError(f"{piece.where}: {error}") from None
            content.add(piece)
            if piece.begins_document:
                starts.append(tokens)
                file.write(separator)
                tokens += len(separator) // TOKEN_DTYPE.itemsize
            file.write(encoded.astype(TOKEN_DTYPE, copy=False).data)
            tokens += len(encoded)
    totals = ItemTotals(tokens, content.bytes, len(starts), content.sha256(), skipped)
    record = json.dumps({**totals._asdict(), "starts": starts}).encode()
    write_file(Path(folder, f"{name}.json"), record)
    return totals


def read_totals(folder: str | Path, name: str) -> ItemTotals | None:
    """Returns the totals of the item with that key, or None unless both its files are complete."""
    try:
        record = json.loads(Path(folder, f"{name}.json").read_bytes())
        size = os.path.getsize(Path(folder, f"{name}.tokens"))
        # Records of earlier versions do not have all fields.
        fields = {name: record[name] for name in ItemTotals._fields if name in record}
        totals = ItemTotals(**fields)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return totals if size == totals.tokens * TOKEN_DTYPE.itemsize else None


def read_starts(folder: str | Path, name: str) -> np.ndarray:
    """Returns the first token of each document that begins in an item, counted within the item."""
    return np.array(json.loads(Path(folder, f"{name}.json").read_bytes())["starts"], np.int64)


def digest_item(item: WorkItem, *, tokenizer: str) -> str:
    """Returns the sha256 that `encode_item` would give, without encoding."""
    content = _Content(item)
    if not item.pinned:
        for piece in item.pieces(_tokenizer(tokenizer)[0]):
            if not piece.problem:
                content.add(piece)
    return content.sha256()


def characters_of_item(item: WorkItem) -> str:
    """Returns the different characters of an item's text in ascending order."""
    characters: set[str] = set()
    for piece in item.pieces(ByteTokenizer()):
        characters.update(piece.text)
    return "".join(sorted(characters))


def texts(items: Iterable[WorkItem]) -> Iterator[str]:
    """Yields the text of items in pieces, in order."""
    for item in items:
        for piece in item.pieces(ByteTokenizer()):
            if not piece.problem:
                yield piece.text


class _Content:
    """Sums the text of an item, of which the borders of documents are a part, and its size."""

    def __init__(self, item: WorkItem) -> None:
        self.bytes = 0
        self._item = item
        self._digest = hashlib.sha256()
        self._starts: list[int] = []

    def add(self, piece: Piece) -> None:
        content = piece.text.encode("utf-8", "surrogatepass")
        if piece.begins_document:
            self._starts.append(self.bytes)
        self.bytes += len(content)
        self._digest.update(content)

    def sha256(self) -> str:
        if self._item.pinned:
            return hashlib.sha256(json.dumps(self._item.identity()).encode()).hexdigest()
        ends = np.array([*self._starts, self.bytes], "<i8")
        self._digest.update(ends.tobytes())
        return self._digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _tokenizer(described: str) -> tuple[Tokenizer, bytes]:
    """Returns the tokenizer, and the bytes of the token that precedes each document."""
    tokenizer = tokenizer_from_dict(json.loads(described))
    separator = [] if tokenizer.eot is None else [tokenizer.eot]
    return tokenizer, np.array(separator, TOKEN_DTYPE).tobytes()
