"""Says what text the tokens of a text stand for, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

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
    data = [_data(tokenizer, token) for token in tokens]
    characters = _characters(b"".join(data))
    found: list[Piece] = []
    at = 0
    for token, own in zip(tokens, data, strict=True):
        found.append(Piece(_named(token, own), own, characters[at]))
        at += len(own)
    return found


def takes_text(tokenizer: Tokenizer) -> bool:
    """Returns whether it is known what text the ids of a tokenizer stand for."""
    return not isinstance(tokenizer, IdsTokenizer)


def _data(tokenizer: Tokenizer, token: int) -> bytes:
    if token >= tokenizer.vocab_size or not takes_text(tokenizer):
        return b""
    return tokenizer.decode_bytes([token])


def _characters(data: bytes) -> list[int]:
    """Returns for each byte, and for the end, the character that it is of in the decoded text.

    Bytes that are no UTF-8 become the same U+FFFDs as in `Tokenizer.decode`.
    """
    widths: list[int] = []
    while data:
        try:
            good, bad = data, 0
            text = good.decode()
        except UnicodeDecodeError as error:
            good, bad = data[: error.start], error.end - error.start
            text = good.decode()
        widths += [len(character.encode()) for character in text]
        widths += [bad] if bad else []
        data = data[len(good) + bad :]
    of_bytes = [i for i, width in enumerate(widths) for _ in range(width)]
    return [*of_bytes, len(widths)]


def _named(token: int, data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace") if data else f"<{token}>"


def listed(tokenizer: Tokenizer, ids: np.ndarray, logprobs: np.ndarray) -> list[list[Any]]:
    """Returns [id, text, probability] of tokens, for JSON.

    Args:
      tokenizer: of the tokens.
      ids: [N].
      logprobs: [N], in nats.
    """
    probs = map(short, np.exp(logprobs.astype(np.float64)))
    return [
        [token, pieces(tokenizer, [token])[0].text, prob]
        for token, prob in zip(ids.tolist(), probs, strict=True)
    ]


def short(value: float) -> float:
    """Returns a number with the nine digits that tell every float32 from its neighbors."""
    return float(f"{value:.9g}")
