"""Turns a choice's updates into pieces of text, each with the log-probabilities of its tokens.

The pieces of a stream, joined, are the answer that is sent as a whole: both are made here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from gpt2_jax.inference.requests import Logprobs
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.job import Update
from gpt2_jax.serve.token_names import TokenNames
from gpt2_jax.tokenizers.streaming import StreamDecoder
from gpt2_jax.tokenizers.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for log-probabilities below it, of which minus infinity is no JSON."""


@dataclasses.dataclass
class Piece:
    """Holds a part of a choice, or the whole of it.

    Attributes:
      text: of the part.
      tokens: that were drawn for it, up to what ended the text.
      prompt_tokens: if the prompt is part of it.
      entries: (token, log-probabilities or None, offset of its text) of each token that is listed.
      finish_reason: if the choice ends with it.
    """

    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    prompt_tokens: list[int] = dataclasses.field(default_factory=list)
    entries: list[tuple[int, Logprobs | None, int]] = dataclasses.field(default_factory=list)
    finish_reason: str | None = None

    def add(self, other: Piece) -> None:
        """Appends the part that follows."""
        self.text += other.text
        self.tokens += other.tokens
        self.prompt_tokens += other.prompt_tokens
        self.entries += other.entries
        self.finish_reason = other.finish_reason


class Assembler:
    """Makes the pieces of one choice, in order.

    A token is listed as soon as the place where its text begins is certain to be in the answer: one
    that a stop string cuts off is never listed, and neither is one that ended the text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        prompt_text: str,
        echo: bool,
        ends: Collection[int],
        listed: bool,
    ) -> None:
        """Starts before the first update.

        Args:
          tokenizer: of the model.
          prompt, prompt_text: the prompt, as ids and as text.
          echo: whether the prompt is a part of the answer.
          ends: ids that end the text and are not part of it.
          listed: whether tokens are listed.
        """
        self._tokenizer, self._prompt, self._prompt_text = tokenizer, [*prompt], prompt_text
        self._echo, self._ends, self._listed = echo, ends, listed
        self._decoder = StreamDecoder(tokenizer)
        self._base = self._decoded = self._certain = len(prompt_text)
        self._waiting: list[tuple[int, Logprobs | None, int]] = []
        self._begun = False

    def take(self, update: Update) -> Piece:
        """Returns what an update adds to the answer."""
        piece = Piece(update.text, update.tokens, finish_reason=update.finish_reason)
        if not self._begun:
            self._begun, piece.prompt_tokens = True, self._prompt
            if self._echo:
                piece.text = self._prompt_text + piece.text
                piece.entries = self._of_prompt(update.prompt_logprobs) if self._listed else []
        if not self._listed:
            return piece
        tokens, stopped = update.tokens, update.finish_reason == "stop"
        by_id = stopped and bool(tokens) and tokens[-1] in self._ends
        for token, logprobs in zip(tokens[:-1] if by_id else tokens, update.logprobs, strict=False):
            self._waiting.append((token, logprobs, self._decoded))
            self._decoded += len(self._decoder.push(token))
        self._certain += len(update.text)
        count = len(self._waiting)
        if update.finish_reason is None or (stopped and not by_id):
            count = sum(offset < self._certain for _, _, offset in self._waiting)
        piece.entries = piece.entries + self._waiting[:count]
        del self._waiting[:count]
        return piece

    def _of_prompt(
        self, logprobs: Sequence[Logprobs | None]
    ) -> list[tuple[int, Logprobs | None, int]]:
        decoder, offset, entries = StreamDecoder(self._tokenizer), 0, []
        for token, found in zip(self._prompt, logprobs, strict=True):
            entries.append((token, found, offset))
            offset += len(decoder.push(token))
        return entries


def lists(entries: Sequence[tuple[int, Logprobs | None, int]], names: TokenNames) -> dict[str, Any]:
    """Returns the object `logprobs` of a choice.

    Args:
      entries: of a `Piece`, with as many alternatives as are to be listed beside the chosen token.
      names: of the model's tokens.
    """
    name = names.name
    tops: list[dict[str, float] | None] = []
    for token, logprobs, _ in entries:
        if logprobs is None:
            tops.append(None)
            continue
        value, top = logprobs
        named = {name(other): clamped(number) for other, number in top}
        named[name(token)] = clamped(value)
        tops.append(named)
    return {
        "tokens": [name(token) for token, _, _ in entries],
        "token_logprobs": [found and clamped(found[0]) for _, found, _ in entries],
        "top_logprobs": tops,
        "text_offset": [offset for _, _, offset in entries],
    }


def clamped(value: float) -> float:
    """Returns a log-probability that JSON can hold.

    Raises:
      ApiError: 500 if it is not a number, which says that the model has overflowed.
    """
    if math.isnan(value):
        raise ApiError(
            500, "the model gave log-probabilities that are not numbers", code="not_a_number"
        )
    return max(value, LOWEST)
