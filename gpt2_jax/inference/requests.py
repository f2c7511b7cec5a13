"""Describes what the engine is asked for, and holds each text while it grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.inference.prefill import MOST_LOGPROBS, Drawn
from gpt2_jax.inference.sampling import SamplingOptions, settings_of
from gpt2_jax.inference.slots import NONE
from gpt2_jax.inference.text import TextStream
from gpt2_jax.tokenizers.tokenizer import Tokenizer

Logprobs = tuple[float, list[tuple[int, float]]]
"""A token's log-probability, and (id, log-probability) of the most probable tokens in its place."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Asks for one text, or several choices of the same prompt.

    Attributes:
      prompt: token ids, at least one.
      max_new_tokens: the most tokens to draw for each choice, at least 1; with `prompt_logprobs`, 0
        draws none.
      options: how they are drawn.
      stop: strings that end a text and are not part of it.
      seed: 64 bits; the same seed, prompt and options give the same texts at equal slots.
      num_choices: how many texts to generate; their noise is independent.
      first_choice: the number of the first of them, which is a part of the seed.
      logprobs: whether to keep log-probabilities of the tokens drawn.
      prompt_logprobs: whether to keep those of the prompt.
      num_alternatives: how many of the most probable tokens to keep in each place, with these.
      slide: whether a text that fills its slot goes on behind the last half of its tokens, of which
        `no_repeat_ngram_size` then sees no others.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    options: SamplingOptions = SamplingOptions()
    stop: Sequence[str] = ()
    seed: int = 0
    num_choices: int = 1
    first_choice: int = 0
    logprobs: bool = False
    prompt_logprobs: bool = False
    num_alternatives: int = MOST_LOGPROBS
    slide: bool = False

    def check(self, vocab_size: int, max_length: int, ends: Collection[int]) -> None:
        """Checks the request against a model.

        Args:
          vocab_size: of the model.
          max_length: the most tokens of a text.
          ends: the tokenizer's ids that end a text.

        Raises:
          UserError: for an empty prompt, ids beyond the vocabulary, or too many tokens.
        """
        options, count = self.options, len(self.prompt)
        if not count:
            raise UserError("the prompt has no token")
        ids = {
            "the prompt": self.prompt,
            "stop_token_ids": options.stop_token_ids,
            "logit_bias": dict(options.logit_bias),
        }
        for name, tokens in ids.items():
            if wrong := [token for token in tokens if not 0 <= token < vocab_size]:
                raise UserError(
                    f"token id {wrong[0]} of {name} is not in the vocabulary: ids must be from 0 "
                    f"to {vocab_size - 1}"
                )
        if self.max_new_tokens < (0 if self.prompt_logprobs else 1):
            raise UserError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.num_choices < 1:
            raise UserError(f"num_choices must be at least 1, not {self.num_choices}")
        if self.slide and count >= max_length:
            raise UserError(
                f"a prompt of {count} tokens leaves no room in {max_length}: shorten it"
            )
        if not self.slide and count + self.max_new_tokens > max_length:
            raise UserError(
                f"prompt of {count} tokens + max_new_tokens={self.max_new_tokens} exceed "
                f"{max_length} tokens; shorten the prompt, lower max_new_tokens, or let the text "
                "go on with --context_overflow slide"
            )
        settings_of(options, ends, self.seed)


class Choice:
    """Holds one text while it grows.

    Attributes:
      request, index: what asked for it, and its number among the choices.
      stream: its text.
      tokens: the ids that were drawn, up to what ended the text.
      logprobs: of each token, if the request wants them.
      prompt_logprobs: of each token of the prompt, None for the first, if the request wants them.
      unread: text that nobody has taken yet; whoever reads it empties it.
      finished: whether it ended, or was cancelled.
    """

    def __init__(self, request: Request, index: int, tokenizer: Tokenizer) -> None:
        """Starts an empty text.

        Args:
          request, index: see the class.
          tokenizer: of the model.
        """
        self.request, self.index = request, index
        ends = request.options.ends(tokenizer.ends)
        self.stream = TextStream(tokenizer, request.stop, ends)
        self.tokens: list[int] = []
        self.logprobs: list[Logprobs] = []
        self.prompt_logprobs: list[Logprobs | None] = []
        self.unread = ""
        self.finished = False

    def take(self, row: Drawn) -> int:
        """Takes what was drawn for it in one call, and returns how many tokens that were.

        A block may go on behind a stop string: these tokens are not part of the text.

        Args:
          row: of one slot: tokens int32 [n], `NONE` where none was drawn; if the request wants
            them, log-probabilities float32 [n] and those of the most probable tokens [n, M].
        """
        drawn = np.atleast_1d(row.tokens)
        tokens = drawn[drawn != NONE].tolist()
        self.unread += self.stream.push(tokens)
        if self.stream.sample:
            del tokens[len(self.stream.sample.tokens) - len(self.tokens) :]
        self.tokens += tokens
        if self.request.logprobs:
            self.logprobs += listed(row, len(tokens), self.request.num_alternatives)
        self._end_if_complete()
        return len(tokens)

    def take_prompt(self, logprobs: Sequence[Logprobs]) -> None:
        """Takes the log-probabilities of the prompt's tokens, from the second on."""
        self.prompt_logprobs = [None, *logprobs]
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if not self.stream.sample and len(self.tokens) == self.request.max_new_tokens:
            self.unread += self.stream.finish()
        self.finished = self.stream.sample is not None


def listed(row: Drawn, count: int, num_alternatives: int) -> list[Logprobs]:
    """Returns the log-probabilities of the first tokens of a row as plain numbers.

    Args:
      row: of one text, [n] and [n, M].
      count: how many tokens, at most n.
      num_alternatives: how many of the most probable tokens to list in each place.
    """
    logprobs = np.atleast_1d(row.logprobs)[:count]
    size = np.shape(row.top_ids)[-1]
    ids = np.reshape(row.top_ids, (-1, size))[:count, :num_alternatives]
    tops = np.reshape(row.top_logprobs, (-1, size))[:count, :num_alternatives]
    return [
        (logprob, list(zip(row_ids, row_tops, strict=True)))
        for logprob, row_ids, row_tops in zip(
            logprobs.tolist(), ids.tolist(), tops.tolist(), strict=True
        )
    ]
