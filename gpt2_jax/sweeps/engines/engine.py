"""Engines: what runs the points of a sweep, and how signals stop it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Protocol

from gpt2_jax.sweeps.folder import Status
from gpt2_jax.sweeps.points import Point

Log = Callable[[str], None]
OnEnd = Callable[[Point, Status], None]
OnWait = Callable[[], None]


class Engine(Protocol):
    """Defines what runs points.

    Attributes:
      at_once: how many points it runs at the same time; None if that is not known.
      when_stopped: what happens to the points that run when it is asked to stop, in words.
    """

    at_once: int | None
    when_stopped: str

    @property
    def stop(self) -> bool:
        """Returns whether it was asked to stop; `run` then returns as soon as nothing is lost."""
        ...

    @stop.setter
    def stop(self, asked: bool) -> None:
        """Asks it to stop."""
        ...

    @property
    def running(self) -> Sequence[str]:
        """Returns the names of the points that run now."""
        ...

    def run(self, points: Sequence[Point], on_end: OnEnd, on_wait: OnWait) -> None:
        """Runs the points until all have ended, or it was asked to stop.

        Args:
          points: to run, in this order.
          on_end: called when a point is done, has diverged or failed, or is left waiting.
          on_wait: called about once a minute.
        """
        ...

    def close(self, exit_status: int) -> None:
        """Ends what belongs to the engine, with the exit status of the sweep."""
        ...


@contextlib.contextmanager
def stopped_by_signals(engine: Engine, log: Log) -> Iterator[None]:
    """Makes SIGINT and SIGTERM stop the engine in the block; a second one ends it at once."""

    def request(number: int, frame: FrameType | None) -> None:
        if engine.stop:
            raise KeyboardInterrupt
        engine.stop = True
        log(f"stopping: {engine.when_stopped}")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
