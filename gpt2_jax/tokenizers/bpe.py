"""Tokenizers with a byte-level byte-pair encoding: GPT-2's own, and those of other models."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers import vocabulary as vocabularies
from gpt2_jax.tokenizers.base import Tokenizer, checked_ids, utf8_bytes
from gpt2_jax.tokenizers.vocabulary import Vocabulary

_GPT2_SIZE, _GPT2_EOT = 50257, 50256


class BPETokenizer(Tokenizer):
    """Encodes with any byte-level byte-pair vocabulary, in words cut by GPT-2's pattern."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        eot: int | None = None,
        vocab_size: int | None = None,
        bos: int | None = None,
        ends: Iterable[int] | None = None,
    ) -> None:
        """Takes a vocabulary and the ids that begin and end a text.

        Args:
          vocabulary: the tokens, each with an id of its own.
          eot: the id that separates documents.
          vocab_size: number of ids that a model may produce; ids without a token stand for no
            text. By default it is as many as the vocabulary needs.
          bos: the id from which a text without a prompt starts; by default `eot`.
          ends: the ids at which generation stops; by default `eot` alone.

        Raises:
          UserError: if ids are repeated, are not integers, or do not fit `vocab_size`.
        """
        ids = [*vocabulary.ranks.values(), *vocabulary.added.values()]
        # tiktoken takes these properties for granted.
        if len(set(ids)) < len(ids) or any(type(id_) is not int or id_ < 0 for id_ in ids):
            raise UserError("the ids of its tokens must be different integers, at least 0")
        size = max(ids, default=-1) + 1
        self.name, self.vocab_size, self.eot = "bpe", vocab_size or size, eot
        self._bos = eot if bos is None else bos
        self._ends = super().ends if ends is None else frozenset(ends)
        special = [*self._ends, *(id_ for id_ in (eot, self._bos) if id_ is not None)]
        if self.vocab_size < size or not all(0 <= id_ < self.vocab_size for id_ in special):
            raise UserError(
                f"its {size} token ids and the end of text {eot} do not fit in a vocabulary of "
                f"{self.vocab_size} ids"
            )
        self.vocabulary = vocabulary
        self._encoding = vocabularies.encoding(vocabulary)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BPETokenizer:
        """Rebuilds a tokenizer from what `to_dict` returned."""
        vocabulary = Vocabulary.from_dict(values["vocabulary"])
        return BPETokenizer(
            vocabulary, values["eot"], values["vocab_size"], values.get("bos"), values.get("ends")
        )

    @property
    def bos(self) -> int | None:
        """Returns the id from which a text without a prompt starts."""
        return self._bos

    @property
    def ends(self) -> frozenset[int]:
        """Returns the ids at which generation stops."""
        return self._ends

    def encode_array(self, text: str) -> np.ndarray:
        """Returns token ids as uint16 [T], or uint32 if the vocabulary needs it.

        The text of an added token, such as a literal `<|endoftext|>`, is ordinary text.
        """
        utf8_bytes(text)
        # An empty `disallowed_special` makes a literal end of text ordinary text.
        ids = [
            self._encoding.encode_to_numpy(part, allowed_special=set(), disallowed_special=())
            for part in vocabularies.without_long_runs(text)
        ]
        dtype = np.min_scalar_type(max(self.vocab_size - 1, 256))
        return (ids[0] if len(ids) == 1 else np.concatenate(ids)).astype(dtype)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the tokens' bytes; the end of text gives its text, such as `<|endoftext|>`."""
        ids = checked_ids(tokens, self)
        if len(self._ids_with_text) < self.vocab_size:
            ids = [token for token in ids if token in self._ids_with_text]
        return self._encoding.decode_bytes(ids)

    def byte_lengths(self) -> np.ndarray:
        """Returns the bytes of each token, int32 [vocab_size], which are 0 for added tokens."""
        lengths = np.zeros(self.vocab_size, np.int32)
        for text, token in self.vocabulary.ranks.items():
            lengths[token] = len(text)
        return lengths

    def border(self, text: str, at: int) -> int | None:
        """Returns the first position from `at` that no word can span, such as before a space."""
        return vocabularies.border(text, at)

    def to_dict(self) -> dict[str, Any]:
        """Returns the name, the sizes, the whole vocabulary, and what differs from `eot`."""
        special: dict[str, Any] = {} if self.bos == self.eot else {"bos": self.bos}
        if self.ends != super().ends:
            special["ends"] = sorted(self.ends)
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "eot": self.eot,
            **special,
            "vocabulary": self.vocabulary.to_dict(),
        }

    @functools.cached_property
    def _ids_with_text(self) -> frozenset[int]:
        return frozenset([*self.vocabulary.ranks.values(), *self.vocabulary.added.values()])


class GPT2Tokenizer(BPETokenizer):
    """Encodes with GPT-2's 50,256 tokens; id 50256 is the end of text."""

    def __init__(self, vocab_size: int | None = None) -> None:
        """Builds the encoder.

        Args:
          vocab_size: number of ids that the model has, which may be padded; 50257 by default.

        Raises:
          UserError: if GPT-2's vocabulary files are missing or damaged.
        """
        super().__init__(vocabularies.gpt2_vocabulary(), eot=_GPT2_EOT, vocab_size=vocab_size)
        self.name = "gpt2"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPT2Tokenizer:
        """Rebuilds a tokenizer from what `to_dict` returned."""
        return cls(values.get("vocab_size"))

    def to_dict(self) -> dict[str, Any]:
        """Returns the name, and the number of ids if the model has more than GPT-2."""
        padded = {"vocab_size": self.vocab_size} if self.vocab_size != _GPT2_SIZE else {}
        return {"name": self.name} | padded
