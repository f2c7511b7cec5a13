"""Says what text the tokens of a text stand for, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.tokenizer import Tokenizer


class Piece(NamedTuple):
    r"""Describes a token.

    Attributes:
      text: its text, with `\xNN` for bytes that are no text by themselves; `<id>` if it has none.
      data: its bytes.
      start: the character of the whole text in which its first byte is.
    """

    text: str
    data: bytes
    start: int


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Piece]:
    """Returns what each token stands for."""
    found: list[Piece] = []
    data = b""
    for token in tokens:
        try:
            own = tokenizer.decode_bytes([token])
        except UserError:  # a model of ids, whose tokenizer is unknown
            own = b""
        # A character whose bytes are not complete yet is the one that the token goes on with.
        start = len(data.decode("utf-8", errors="ignore"))
        found.append(Piece(_named(token, own), own, start))
        data += own
    return found


def _named(token: int, data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace") if data else f"<{token}>"
