"""The tokenizer of texts that consist of a fixed list of words, such as the events of music."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.tokenizers.base import Tokenizer, checked_ids, utf8_bytes


class WordsTokenizer(Tokenizer):
    """Maps each word to its place in a list; the id after the last word is the end of text.

    A text is words with a space after each. Any other white space between them is read as a space,
    and the last one may be missing.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Takes the words to know.

        Raises:
          UserError: if there is none, if one has white space or is empty, or occurs twice.
        """
        if not words:
            raise UserError("the words tokenizer must know at least one word, but got none")
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        for word in self.words:
            utf8_bytes(word)
            if word.split() != [word]:
                raise UserError(f"{word!r} is not a word: it must be characters without a space")
        if len(self._ids) < len(self.words):
            raise UserError("the words tokenizer got a word twice: give each once")
        self.name, self.vocab_size, self.eot = "words", len(self.words) + 1, len(self.words)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WordsTokenizer:
        """Rebuilds a tokenizer from what `to_dict` returned."""
        return cls(values["words"])

    def encode_array(self, text: str) -> np.ndarray:
        """Returns one id per word, [T], as uint16 whenever the vocabulary fits in shards."""
        utf8_bytes(text)
        words = text.split()
        try:
            ids = [self._ids[word] for word in words]
        except KeyError:
            unknown = next(word for word in words if word not in self._ids)
            raise UserError(
                f"the words tokenizer does not know {unknown!r:.60}: it knows "
                f"{len(self.words)} words, such as {self.words[0]!r}"
                f"{did_you_mean(unknown, self.words)}"
            ) from None
        return np.array(ids, np.min_scalar_type(max(self.vocab_size - 1, 256)))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the words, each with a space after it, without ends of text."""
        ids = (token for token in checked_ids(tokens, self) if token != self.eot)
        return "".join(f"{self.words[token]} " for token in ids).encode("utf-8")

    def byte_lengths(self) -> np.ndarray:
        """Returns the bytes of each word and its space, int32 [vocab_size]; 0 for the last."""
        return np.array([*(len(f"{word} ".encode()) for word in self.words), 0], np.int32)

    def border(self, text: str, at: int) -> int | None:
        """Returns the first position from `at` that follows a space, or None."""
        return next((i for i in range(at, len(text)) if text[i - 1].isspace()), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns the name and the words."""
        return {"name": self.name, "words": list(self.words)}
