"""The protocol that every tokenizer follows, and the checks that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from gpt2_jax.errors import UserError


class UnsupportedTokenizer(UserError):
    """Reports a tokenizer of a kind that cannot be read; its model can still be used with ids."""


class Tokenizer(Protocol):
    """Converts text to token ids and back.

    `decode(encode(text)) == text` holds for every valid text that the tokenizer knows. A literal
    `<|endoftext|>` in a text is ordinary text: only code that joins documents writes the special
    id. Our tokenizers inherit from this class the methods that they do not improve on.
    """

    name: str
    vocab_size: int
    eot: int | None
    """The id that separates documents, or None if the tokenizer has no such id."""

    @property
    def bos(self) -> int | None:
        """Returns the id from which a text without a prompt starts: `eot` unless said otherwise."""
        return self.eot

    @property
    def ends(self) -> frozenset[int]:
        """Returns every id at which generation stops: `eot` unless said otherwise."""
        return frozenset() if self.eot is None else frozenset([self.eot])

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, which never include `eot`.

        Raises:
          UserError: if the text cannot be encoded.
        """
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """Returns what `encode` does as uint16 [T], without a Python integer per token."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes that the ids stand for; raises UserError for an id out of range."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of the ids, with U+FFFD for bytes that are not valid UTF-8."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def byte_lengths(self) -> np.ndarray:
        """Returns the bytes of UTF-8 text per id, int32 [vocab_size], which are 0 for `eot`."""
        ...

    def border(self, text: str, at: int) -> int | None:
        """Returns the first position from `at` (at least 1) where `text` may be cut, or None.

        The tokens of the text before a border followed by those of the text after it are the
        tokens of the whole text, whatever comes before and after it.
        """
        return at if at < len(text) else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, of which `tokenizer_from_dict` is the inverse."""
        return {"name": self.name}


def utf8_bytes(text: str) -> bytes:
    """Returns the text as UTF-8; raises UserError if it has a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate, {text[error.start]!r}, at character {error.start}, "
            "which UTF-8 cannot represent: remove it"
        ) from None


def checked_ids(tokens: Iterable[int], tokenizer: Tokenizer) -> list[int]:
    """Returns the ids as Python integers; raises UserError if one is not in the vocabulary."""
    ids = [int(token) for token in tokens]
    size = tokenizer.vocab_size
    if ids and not 0 <= min(ids) <= max(ids) < size:
        wrong = next(token for token in ids if not 0 <= token < size)
        raise UserError(
            f"token id {wrong} is not in the {tokenizer.name} tokenizer's vocabulary: "
            f"ids must be from 0 to {size - 1}"
        )
    return ids
