"""Decoding of tokens that come one at a time."""

from __future__ import annotations

import codecs

from gpt2_jax.tokenizers.base import Tokenizer


class StreamDecoder:
    """Turns tokens into text one at a time and never returns half a character.

    What `push` and `finish` return, joined, equals `tokenizer.decode` of all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Starts with no bytes pending."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Returns the text that this token completes, empty while a character needs more bytes."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """Returns the rest: U+FFFD if the last character is incomplete, otherwise nothing."""
        return self._decoder.decode(b"", final=True)
