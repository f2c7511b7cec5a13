"""Holds a prompt while the engine reads it, chunk by chunk."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from gpt2_jax.inference.prefill import Chunks, Drawn
from gpt2_jax.inference.requests import Choice


@dataclasses.dataclass(eq=False)
class Prefill:
    """Holds a text that is being read, and who waits for it.

    Attributes:
      choices: those that go on behind it and are not in a slot yet.
      tokens, chunks: the text.
      drawn: how many of the tokens were drawn.
      cache: of the chunks so far.
      slot: of a text that goes on in its slot.
      found: (log-probabilities of a chunk's targets, chunks of which they are) until they are read.
    """

    choices: collections.deque[Choice]
    tokens: list[int]
    chunks: Chunks
    drawn: int
    cache: Any
    slot: int | None = None
    found: list[tuple[Drawn, int, int]] | None = dataclasses.field(default_factory=list)
