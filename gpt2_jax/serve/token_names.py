"""Names tokens in JSON, where a token may be no text of its own."""

from __future__ import annotations

import functools
import re

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT


def special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns {name: id} of the tokens that `encode` never gives."""
    vocabulary = getattr(tokenizer, "vocabulary", None)
    names = dict(getattr(vocabulary, "added", {}))
    if tokenizer.eot is not None and tokenizer.eot not in names.values():
        names[END_OF_TEXT] = tokenizer.eot
    return names


class TokenNames:
    """Names the tokens of one tokenizer, each differently, and finds special ones in a text.

    Attributes:
      special: {name: id} of `special_tokens`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes the tokenizer."""
        self._tokenizer, self.special = tokenizer, special_tokens(tokenizer)
        self._of_special = {token: name for name, token in self.special.items()}
        longest_first = sorted(self.special, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self.name = functools.lru_cache(maxsize=None)(self._name)

    def _name(self, token: int) -> str:
        r"""Returns a token's text; `bytes:\xNN` for bytes that are no text by themselves."""
        if token in self._of_special:
            return self._of_special[token]
        data = self._tokenizer.decode_bytes([token])
        if not data:
            return f"token_id:{token}"
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text in which the names of special tokens stand for these.

        Raises:
          UserError: if the rest of the text cannot be encoded.
        """
        pieces = self._pattern.split(text) if self.special else [text]
        tokens: list[int] = []
        for piece in pieces:
            if piece in self.special:
                tokens.append(self.special[piece])
            elif piece:
                tokens += self._tokenizer.encode(piece)
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """Returns the text of ids, with the names of special tokens.

        Raises:
          UserError: for an id that is not in the vocabulary.
        """
        text, run = "", []
        for token in tokens:
            if token in self._of_special:
                text += self._tokenizer.decode(run) + self._of_special[token]
                run = []
            else:
                run.append(token)
        return text + self._tokenizer.decode(run)

    @property
    def takes_text(self) -> bool:
        """Returns whether the tokenizer encodes text at all."""
        try:
            self._tokenizer.encode("\n")
        except UserError:
            return False
        return True
