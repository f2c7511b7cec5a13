"""The tokenizer of plain bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpt2_jax.tokenizers.base import Tokenizer, checked_ids, utf8_bytes


class ByteTokenizer(Tokenizer):
    """Maps text to its UTF-8 bytes; id 256 is the end of text, which decodes to nothing."""

    def __init__(self) -> None:
        """Makes the byte tokenizer, which has no settings."""
        self.name, self.vocab_size, self.eot = "byte", 257, 256

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ByteTokenizer:
        """Rebuilds the tokenizer from what `to_dict` returned."""
        return cls()

    def encode_array(self, text: str) -> np.ndarray:
        """Returns the UTF-8 bytes as uint16 [T]."""
        return np.frombuffer(utf8_bytes(text), np.uint8).astype(np.uint16)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes, without ends of text."""
        return bytes(token for token in checked_ids(tokens, self) if token != self.eot)

    def byte_lengths(self) -> np.ndarray:
        """Returns int32 [257]: one byte for each id, none for the end of text."""
        return np.array([1] * 256 + [0], np.int32)
