"""Turns the tokens of one sample into certain text, and decides when stop strings end it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from gpt2_jax.tokenizers.streaming import StreamDecoder
from gpt2_jax.tokenizers.tokenizer import Tokenizer

FINISH_REASONS = ("stop", "length")
"""Why a text can end."""


@dataclasses.dataclass
class Sample:
    """Holds one generated text.

    Attributes:
      text: the text after the prompt, without the stop string that ended it.
      tokens: the generated ids, including those of an end of text or the stop string.
      finish_reason: of `FINISH_REASONS`: "stop" (end of text or a stop string) or "length".
    """

    text: str
    tokens: list[int]
    finish_reason: str


class TextStream:
    """Takes the tokens of a sample and gives its text as far as it is certain.

    Text that may be the beginning of a stop string, or is an incomplete character, is held back.
    What is given, joined, is exactly the sample's text.

    Attributes:
      sample: the finished sample; None until then.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), ends: Collection[int] | None = None
    ) -> None:
        """Starts an empty text.

        Args:
          tokenizer: of the tokens.
          stop: strings that end the text, and are not part of it.
          ends: ids that end it; by default the tokenizer's.
        """
        self._ends = tokenizer.ends if ends is None else ends
        self._stop = [text for text in stop if text]
        self._decoder = StreamDecoder(tokenizer)
        self._tokens: list[int] = []
        self._text, self._emitted = "", 0
        self.sample: Sample | None = None

    def push(self, tokens: Sequence[int]) -> str:
        """Takes the next tokens and returns the text that became certain."""
        for token in map(int, tokens):
            if self.sample:
                return ""
            self._tokens.append(token)
            if token in self._ends:
                return self._end("stop", len(self._text))
            before = len(self._text)
            self._text += self._decoder.push(token)
            # A stop string that ends here may have begun up to its length earlier.
            starts = [self._text.find(s, max(0, before - len(s) + 1)) for s in self._stop]
            if matches := [start for start in starts if start >= 0]:
                return self._end("stop", min(matches))
        return self._emit(len(self._text) - self._held_back())

    def finish(self) -> str:
        """Ends the text because there is no more room; returns what was still held back."""
        if self.sample:
            return ""
        self._text += self._decoder.finish()
        return self._end("length", len(self._text))

    def _end(self, reason: str, length: int) -> str:
        self.sample = Sample(self._text[:length], self._tokens, reason)
        return self._emit(length)

    def _emit(self, end: int) -> str:
        piece, self._emitted = self._text[self._emitted : end], max(end, self._emitted)
        return piece

    def _held_back(self) -> int:
        """Returns the number of characters at the end that may begin a stop string."""
        # What was emitted began none: else it would have been held back.
        for at in range(self._emitted, len(self._text)):
            rest = self._text[at:]
            if any(len(rest) < len(stop) and stop.startswith(rest) for stop in self._stop):
                return len(rest)
        return 0
