"""The tokenizer of single characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.base import Tokenizer, checked_ids, utf8_bytes


class CharTokenizer(Tokenizer):
    """Maps each character to an id, numbered in sorted order as in nanoGPT; has no end of text."""

    def __init__(self, characters: str) -> None:
        """Takes the characters to know, in any order; raises UserError if there are none."""
        if not characters:
            raise UserError("the char tokenizer must know at least one character, but got none")
        utf8_bytes(characters)
        self.characters = "".join(sorted(set(characters)))
        self.name, self.vocab_size, self.eot = "char", len(self.characters), None
        self._code_points = _code_points(self.characters)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CharTokenizer:
        """Rebuilds a tokenizer from what `to_dict` returned."""
        return cls(values["characters"])

    def encode_array(self, text: str) -> np.ndarray:
        """Returns one id per character, [T], as uint16 whenever the vocabulary fits in shards."""
        utf8_bytes(text)
        points = _code_points(text)
        ids = np.searchsorted(self._code_points, points)
        # searchsorted gives a position for any value; only an equal value is a known character.
        known = self._code_points[np.minimum(ids, self.vocab_size - 1)] == points
        if not known.all():
            character = text[int(np.argmin(known))]
            raise UserError(
                f"the char tokenizer does not know {character!r}: it knows the {self.vocab_size} "
                "characters of the text that it was prepared from; remove the character, or "
                "prepare with --tokenizer byte"
            )
        return ids.astype(np.min_scalar_type(max(self.vocab_size - 1, 256)))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the characters as UTF-8."""
        ids = checked_ids(tokens, self)
        return "".join(self.characters[token] for token in ids).encode("utf-8")

    def byte_lengths(self) -> np.ndarray:
        """Returns the bytes of each character in UTF-8, int32 [vocab_size]."""
        return np.array([len(c.encode("utf-8")) for c in self.characters], np.int32)

    def to_dict(self) -> dict[str, Any]:
        """Returns the name and the characters."""
        return {"name": self.name, "characters": self.characters}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")
