"""What is done with one part of a corpus; each function runs in any process of any machine.

A part's tokens are two files named by the part's key: `<key>.tokens`, uint16, and `<key>.json`,
which appears last. The same key always gives the same bytes, so that it does no harm when two
processes make the same part.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.work_items import Part, key
from gpt2_jax.tokenizers.tokenizer import ByteTokenizer, Tokenizer, tokenizer_from_dict

_BUFFER_BYTES = 1 << 20


class PartTotals(NamedTuple):
    """What a part came to."""

    tokens: int
    bytes: int
    """Of UTF-8 text."""
    documents: int
    """That begin in it."""
    sha256: str
    """Of its text and where documents begin."""


def encode_part(part: Part, *, tokenizer: str, folder: str) -> PartTotals:
    """Writes a part's tokens: each document's, after the tokenizer's end of text.

    Args:
      tokenizer: JSON of `Tokenizer.to_dict()`.
      folder: where the files go.

    Raises:
      UserError: naming the text that cannot be read or encoded.
    """
    worker, before = _tokenizer(tokenizer)
    content = _Content(part)
    tokens, starts = 0, []

    def write(file: IO[bytes]) -> None:
        nonlocal tokens
        for text in part.texts(worker):
            try:
                encoded = worker.encode_array(text.text)
            except UserError as error:
                raise UserError(f"{text.where}: {error}") from None
            content.add(text.text, text.begins)
            if text.begins:
                starts.append(tokens)
                file.write(before)
                tokens += len(before) // TOKEN_DTYPE.itemsize
            file.write(encoded.astype(TOKEN_DTYPE, copy=False).data)
            tokens += len(encoded)

    name = key(part, tokenizer)
    _write(Path(folder, f"{name}.tokens"), write)
    totals = PartTotals(tokens, content.bytes, len(starts), content.sha256())
    record = json.dumps({**totals._asdict(), "starts": starts}).encode()
    _write(Path(folder, f"{name}.json"), lambda file: file.write(record))
    return totals


def read_totals(folder: str | Path, name: str) -> PartTotals | None:
    """The totals of the part with that key, if it is complete."""
    try:
        record = json.loads(Path(folder, f"{name}.json").read_bytes())
        size = os.path.getsize(Path(folder, f"{name}.tokens"))
        totals = PartTotals(*(record[field] for field in PartTotals._fields))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return totals if size == totals.tokens * TOKEN_DTYPE.itemsize else None


def read_starts(folder: str | Path, name: str) -> np.ndarray:
    """First token of each document that begins in a part, counted from the part's first."""
    return np.array(json.loads(Path(folder, f"{name}.json").read_bytes())["starts"], np.int64)


def digest_part(part: Part, *, tokenizer: str) -> str:
    """The sha256 that `encode_part` would give, without encoding."""
    content = _Content(part)
    if not part.pinned:
        for text in part.texts(_tokenizer(tokenizer)[0]):
            content.add(text.text, text.begins)
    return content.sha256()


def characters_of_part(part: Part) -> str:
    """The different characters of a part's text, in ascending order."""
    found: set[str] = set()
    for text in part.texts(ByteTokenizer()):
        found.update(text.text)
    return "".join(sorted(found))


class _Content:
    """Digest and size of a part's text. The borders of documents are part of the content."""

    def __init__(self, part: Part) -> None:
        self.bytes = 0
        self._part = part
        self._digest = hashlib.sha256()
        self._starts: list[int] = []

    def add(self, text: str, begins: bool) -> None:
        content = text.encode("utf-8", "surrogatepass")
        if begins:
            self._starts.append(self.bytes)
        self.bytes += len(content)
        self._digest.update(content)

    def sha256(self) -> str:
        if self._part.pinned:
            return hashlib.sha256(json.dumps(self._part.identity()).encode()).hexdigest()
        ends = np.array([*self._starts, self.bytes], "<i8")
        self._digest.update(ends.tobytes())
        return self._digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _tokenizer(described: str) -> tuple[Tokenizer, bytes]:
    """The tokenizer, and the token before each document as bytes."""
    tokenizer = tokenizer_from_dict(json.loads(described))
    before = [] if tokenizer.eot is None else [tokenizer.eot]
    return tokenizer, np.array(before, TOKEN_DTYPE).tobytes()


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file that has its name only once it is whole."""
    temporary = f"{path}.{socket.gethostname()}-{os.getpid()}.tmp"
    try:
        with open(temporary, "wb", _BUFFER_BYTES) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
