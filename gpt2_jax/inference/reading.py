"""Reads prompts chunk by chunk, several in turns, each into a cache of its own."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from gpt2_jax.inference.placement import Placement
from gpt2_jax.inference.prefill import Chunks, Drawn, empty_cache, prefill_chunk
from gpt2_jax.inference.requests import Choice, Logprobs, listed
from gpt2_jax.model.gpt2 import GPT2

_MOST_PREFILLS = 4
"""How many prompts are read in turns, and have a cache of their own until they are in a slot."""


@dataclasses.dataclass(eq=False)
class Prefill:
    """Holds a text that is being read, and who waits for it.

    Attributes:
      choices: those that go on behind it and are not in a slot yet.
      tokens, chunks: the text.
      drawn: how many of the tokens were drawn.
      cache: of the chunks so far.
      slot: of a text that goes on in its slot.
      found: of each chunk (log-probabilities of its targets, the first that counts, how many there
        are), if they are asked for.
      reported: whether the choices were promised these.
    """

    choices: collections.deque[Choice]
    tokens: list[int]
    chunks: Chunks
    drawn: int
    cache: Any
    slot: int | None = None
    found: list[tuple[Drawn, int, int]] = dataclasses.field(default_factory=list)
    reported: bool = False

    @property
    def wants_logprobs(self) -> bool:
        """Returns whether log-probabilities of the text are asked for."""
        return self.slot is None and self.choices[0].request.prompt_logprobs


class Reader:
    """Reads the prompts of an engine.

    Attributes:
      prefills: the texts, whose turns come in this order.
    """

    def __init__(self, model: GPT2, params: Any, room: int, place: Placement) -> None:
        """Starts without prompts.

        Args:
          model, params: see `Engine`.
          room: tokens that each cache has room for.
          place: where the parameters are.
        """
        self._model, self._params, self._room, self._place = model, params, room, place
        self.prefills: collections.deque[Prefill] = collections.deque()

    @property
    def num_choices(self) -> int:
        """Returns how many texts behind the prompts are not in a slot yet."""
        return sum(len(p.choices) for p in self.prefills if p.slot is None)

    @property
    def full(self) -> bool:
        """Returns whether no further prompt can be begun."""
        return len(self.prefills) >= _MOST_PREFILLS

    @property
    def finished(self) -> list[Prefill]:
        """Returns the texts of which every chunk was read."""
        return [prefill for prefill in self.prefills if prefill.chunks.finished]

    @property
    def unfinished(self) -> list[Prefill]:
        """Returns the texts of which there are further chunks, in turns."""
        return [prefill for prefill in self.prefills if not prefill.chunks.finished]

    def begin(
        self, choices: Iterable[Choice], tokens: Sequence[int], drawn: int, slot: int | None = None
    ) -> None:
        """Takes a text that is to be read; see `Prefill`."""
        cache = self._place.make(empty_cache, self._model, 1, self._room)
        chunks = Chunks([*tokens], self._room)
        choices = collections.deque(choices)
        self.prefills.append(Prefill(choices, [*tokens], chunks, drawn, cache, slot))

    def read_chunk(self) -> None:
        """Reads one chunk of the text whose turn it is, if there is one."""
        prefill = next(iter(self.unfinished), None)
        if prefill is None:
            return
        self.prefills.remove(prefill)
        self.prefills.append(prefill)  # round robin
        done = prefill.chunks.done
        chunk, targets, start, count = prefill.chunks.next()
        prefill.cache, found = self._place.run(
            prefill_chunk,
            self._model,
            self._params,
            prefill.cache,
            chunk,
            targets,
            np.int32(start),
            logprobs=prefill.wants_logprobs,
        )
        if found is not None:
            prefill.found.append((found, done - start, count))

    def cancel(self, choice: Choice) -> None:
        """Lets go of a text behind a prompt, and of the prompt if nobody else waits for it."""
        for prefill in [prefill for prefill in self.prefills if choice in prefill.choices]:
            prefill.choices.remove(choice)
            if not prefill.choices:
                self.prefills.remove(prefill)

    def close(self) -> None:
        """Frees the memory of the device."""
        for array in jax.tree.leaves([prefill.cache for prefill in self.prefills]):
            array.delete()
        self.prefills.clear()


def take_prompt(choices: Sequence[Choice], found: Sequence[tuple[Drawn, int, int]]) -> None:
    """Waits for the log-probabilities of a prompt, and hands them to its choices.

    Args:
      choices: of the prompt.
      found: of the `Prefill`.
    """
    most = choices[0].request.num_alternatives
    logprobs: list[Logprobs] = []
    for drawn, first, count in found:
        # Tokens before the first of a last chunk were in the chunk before.
        logprobs += listed(drawn.on_host().row(0), count, most)[first:]
    for choice in choices:
        if not choice.finished:
            choice.take_prompt(logprobs)
