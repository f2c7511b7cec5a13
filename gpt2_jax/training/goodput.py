"""Where a run's time goes: the fraction of it that trains, and what took the rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

_TRAINING, DATA_WAIT = "training", "data_wait"


class Goodput:
    """Splits the seconds since it was made between activities, of which one goes on at a time.

    What is not measured as another activity is training: the steps, and reading their metrics.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the clock, which returns seconds."""
        self._clock = clock
        self._activity, self._since = _TRAINING, clock()
        self._seconds = {_TRAINING: 0.0}

    @contextlib.contextmanager
    def measuring(self, activity: str) -> Iterator[None]:
        """Counts the seconds of the block as `activity`; a block inside it counts as its own."""
        outer = self._switch_to(activity)
        try:
            yield
        finally:
            self._switch_to(outer)

    @property
    def paused(self) -> float:
        """Returns the seconds in which no step was due, such as those of validations and saves."""
        self._switch_to(self._activity)
        stepping = (_TRAINING, DATA_WAIT)
        return sum(spent for name, spent in self._seconds.items() if name not in stepping)

    def measure(self) -> dict[str, float]:
        """Returns `goodput` (0 to 1), and `seconds/<activity>` of each activity up to now."""
        self._switch_to(self._activity)
        total = sum(self._seconds.values())
        goodput = self._seconds[_TRAINING] / total if total > 0 else 0.0
        return {
            "goodput": goodput,
            **{f"seconds/{name}": spent for name, spent in self._seconds.items()},
        }

    def _switch_to(self, activity: str) -> str:
        """Credits the time since the last switch to the current activity, which it returns."""
        now, previous = self._clock(), self._activity
        self._seconds[previous] = self._seconds.get(previous, 0.0) + now - self._since
        self._activity, self._since = activity, now
        return previous
