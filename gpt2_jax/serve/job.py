"""Carries what the engine's thread generates for one HTTP request to the loop that answers it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

from gpt2_jax.inference.requests import Choice, Logprobs, Request
from gpt2_jax.serve.errors import ApiError

_MOST_UNREAD = 1024
_MOST_UNREAD_OF_CHOICE = 64
"""How many tokens may wait for a reader before its request is cancelled: the sum of both."""


class Update(NamedTuple):
    """Says how far a choice has come since the last update.

    Attributes:
      index: of the choice among all of the request.
      text: that became certain.
      tokens, logprobs: that were drawn.
      prompt_logprobs: of the whole prompt, in the first update only, if they are asked for.
      finish_reason: "stop" or "length" in the last update, else None.
    """

    index: int
    text: str
    tokens: list[int]
    logprobs: list[Logprobs]
    prompt_logprobs: list[Logprobs | None]
    finish_reason: str | None


@dataclasses.dataclass(eq=False)
class Part:
    """Holds one prompt of a job, and its choices while they grow.

    Attributes:
      job, request: what it belongs to, and what the engine is asked for.
      first_index: the index of its first choice.
      choices: of the engine, once it has the request.
      seen: how many tokens of each choice were handed on.
      open: the choices that go on.
      queued, started, first_token, last_token: moments of `time.monotonic`.
    """

    job: Job
    request: Request
    first_index: int
    choices: list[Choice] = dataclasses.field(default_factory=list)
    seen: list[int] = dataclasses.field(default_factory=list)
    open: set[int] = dataclasses.field(default_factory=set)
    queued: float = dataclasses.field(default_factory=time.monotonic)
    started: float = 0.0
    first_token: float | None = None
    last_token: float = 0.0

    def updates(self) -> list[Update]:
        """Returns what is new of its choices; the engine's thread calls it."""
        found = []
        for number in sorted(self.open):
            choice, seen = self.choices[number], self.seen[number]
            sample = choice.stream.sample
            if len(choice.tokens) == seen and not sample:
                continue
            update = Update(
                index=self.first_index + number,
                text=choice.unread,
                tokens=choice.tokens[seen:],
                logprobs=choice.logprobs[seen:],
                prompt_logprobs=[] if seen else choice.prompt_logprobs,
                finish_reason=sample.finish_reason if sample else None,
            )
            found.append(update)
            choice.unread, self.seen[number] = "", len(choice.tokens)
            if sample:
                self.open.remove(number)
        return found


class Job:
    """Holds the prompts of one HTTP request, and updates that nobody has read yet.

    The engine's thread calls `post` and `fail`; the loop that made the job awaits `next`.

    Attributes:
      parts: its prompts.
      client: who sent it, for taking turns.
      ended: whether it failed or was cancelled; nothing more is generated for it.
    """

    def __init__(self, requests: Sequence[Request], client: str) -> None:
        """Must be called in the event loop that will await the updates."""
        self.client, self.ended = client, False
        self.parts: list[Part] = []
        count = 0
        for request in requests:
            self.parts.append(Part(self, request, count))
            count += request.num_choices
        self._unread: collections.deque[Update] = collections.deque()
        self._most_unread = _MOST_UNREAD + _MOST_UNREAD_OF_CHOICE * count
        self._left = count
        self._failure: ApiError | None = None
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()

    @property
    def begun(self) -> bool:
        """Returns whether the engine has had any of the prompts."""
        return any(part.started for part in self.parts)

    @property
    def complete(self) -> bool:
        """Returns whether the reader has seen the end of every choice."""
        return not self._left

    def post(self, updates: Sequence[Update]) -> bool:
        """Hands updates to the reader; returns False if it reads too slowly, or is gone."""
        self._unread.extend(updates)
        self._wake()
        # Updates are removed by another thread meanwhile: this counts a copy.
        return sum(len(update.tokens) for update in [*self._unread]) <= self._most_unread

    def fail(self, error: ApiError) -> None:
        """Ends the job with an error, unless it has ended."""
        if not self.ended:
            self.ended, self._failure = True, error
            self._wake()

    async def next(self) -> list[Update]:
        """Waits for news and returns all updates so far; none if every choice is finished.

        Raises:
          ApiError: if the job has failed, at once.
        """
        while self._left and not self._unread and not self._failure:
            self._news.clear()
            await self._news.wait()
        if self._failure:
            raise self._failure
        updates = []
        while self._unread:
            updates.append(self._unread.popleft())
        self._left -= sum(update.finish_reason is not None for update in updates)
        return updates

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._news.set)
