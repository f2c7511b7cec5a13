"""Says what text the tokens of a text stand for, one by one."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer


class Piece(NamedTuple):
    r"""Describes a token.

    Attributes:
      text: its text, with `\xNN` for bytes that are no text by themselves; `<id>` if it has none.
      data: its bytes; none if they are unknown, as those of models that take ids only.
      start: the character of the decoded text in which its first byte is, counted from 0.
    """

    text: str
    data: bytes
    start: int


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Piece]:
    """Returns what each token stands for."""
    decoder, decoded = codecs.getincrementaldecoder("utf-8")("replace"), 0
    found: list[Piece] = []
    for token in tokens:
        data = _data(tokenizer, token)
        pending = decoder.getstate()[0]
        # Of a character whose bytes are not complete the token may have the next one; if it has
        # not, they are decoded as a character of their own.
        start = decoded + bool(pending and data and not _goes_on(pending, data[:1]))
        found.append(Piece(_named(token, data), data, start))
        decoded += len(decoder.decode(data))
    return found


def takes_text(tokenizer: Tokenizer) -> bool:
    """Returns whether it is known what text the ids of a tokenizer stand for."""
    return not isinstance(tokenizer, IdsTokenizer)


def _data(tokenizer: Tokenizer, token: int) -> bytes:
    if token >= tokenizer.vocab_size or not takes_text(tokenizer):
        return b""
    return tokenizer.decode_bytes([token])


def _goes_on(pending: bytes, byte: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(pending + byte)
    except UnicodeDecodeError:
        return False
    return True


def _named(token: int, data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace") if data else f"<{token}>"
