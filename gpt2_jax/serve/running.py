"""Runs prompts on the engine of one model, and hands on to each request what is drawn for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from gpt2_jax.inference.engine import Engine
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.job import Job, Part


class Observer(Protocol):
    """Is told by the engine's thread what happens to prompts, for metrics."""

    def tokens_drawn(self, part: Part, counts: Sequence[int], now: float) -> None:
        """Takes how many tokens each choice of a prompt got, before the times are updated."""
        ...

    def finished(self, part: Part, now: float) -> None:
        """Takes a prompt all of whose choices are finished."""
        ...

    def cancelled(self, job: Job) -> None:
        """Takes a job that ended before it was complete because its client left."""
        ...


class Running:
    """Holds the prompts that an engine runs.

    Only the engine's thread may call it. Any thread may read `parts`, a tuple that is never changed
    but replaced by another one.

    Attributes:
      engine: that runs them.
      parts: the prompts, in the order in which they began.
    """

    def __init__(self, engine: Engine, observer: Observer) -> None:
        """Starts without prompts.

        Args:
          engine: that runs them.
          observer: of what happens.
        """
        self.engine, self._observer = engine, observer
        self.parts: tuple[Part, ...] = ()

    @property
    def has_room(self) -> bool:
        """Returns whether another prompt could begin; the queue keeps the others in turns."""
        return self.engine.num_running + self.engine.num_waiting < self.engine.num_slots

    def add(self, part: Part) -> None:
        """Takes a prompt over from the queue, of which the engine does not know yet."""
        part.started = time.monotonic()
        self.parts = (*self.parts, part)

    def begin(self, part: Part) -> None:
        """Gives a prompt to the engine, and raises what the engine raises."""
        part.choices = self.engine.submit(part.request)
        part.seen, part.open = [0] * len(part.choices), set(range(len(part.choices)))

    def drop(self, job: Job) -> None:
        """Takes the prompts of a job out of the engine."""
        for part in self.parts:
            if part.job is job:
                for choice in part.choices:
                    self.engine.cancel(choice)
                self._remove(part)

    def step(self) -> list[Job]:
        """Takes all texts further and hands on what is new; returns jobs that nobody reads.

        These have failed, and their prompts are dropped.
        """
        self.engine.step()
        now, unread = time.monotonic(), []
        for part in self.parts:
            if part.job.ended:  # perhaps together with another prompt, just now
                self.drop(part.job)
            elif not self._publish(part, now):
                part.job.fail(ApiError(408, "the answer is read too slowly", code="slow_reader"))
                self.drop(part.job)
                unread.append(part.job)
        return unread

    def _publish(self, part: Part, now: float) -> bool:
        """Hands on what is new of a prompt; returns False if its job reads too slowly."""
        updates = part.updates()
        if not updates:
            return True
        if counts := [len(update.tokens) for update in updates if update.tokens]:
            self._observer.tokens_drawn(part, counts, now)
            part.first_token = part.first_token or now
            part.last_token = now
        if not part.open:
            self._remove(part)
            self._observer.finished(part, now)
        return part.job.post(updates)

    def _remove(self, part: Part) -> None:
        self.parts = tuple(each for each in self.parts if each is not part)
