"""Keeps the runs that were looked at last, in a bounded amount of memory.

The id of a run is a hash of all that its numbers depend on, so that an array of it never changes:
browsers keep it, and a run that has made room for others comes back under its own id.
"""

from __future__ import annotations

import collections
import hashlib
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import jax

import gpt2_jax

MOST_RUN_BYTES = 512 * 2**20
"""The most bytes of all runs together, but for the last one, which is kept whatever its size."""
RUN_ID = re.compile(r"[0-9a-f]{32}")
"""What the id of a run looks like."""


def run_id(fingerprint: str, step: int, tokens: Sequence[int], interventions: Any) -> str:
    """Returns the id of a run.

    Args:
      fingerprint: of the model's parameters and config.
      step: that the parameters are of.
      tokens: of the text.
      interventions: as JSON; None if there are none.
    """
    what = {
        "made_by": [gpt2_jax.__version__, jax.__version__, jax.default_backend()],
        "fingerprint": fingerprint,
        "step": step,
        "tokens": list(tokens),
        "interventions": interventions or None,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


class Sized(Protocol):
    """Has a size, which counts against a limit."""

    @property
    def num_bytes(self) -> int:
        """Returns how many bytes it keeps."""
        ...


SizedT = TypeVar("SizedT", bound=Sized)


class Kept(Generic[SizedT]):
    """Holds values by name, up to a number of bytes; the least recently used make room.

    Any thread may use it.
    """

    def __init__(self, most_bytes: int, at_least: int = 1) -> None:
        """Starts empty.

        Args:
          most_bytes: of all values together.
          at_least: so many of the last values are kept whatever their size.
        """
        self._most_bytes, self._at_least = most_bytes, at_least
        self._values: collections.OrderedDict[str, SizedT] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> SizedT | None:
        """Returns a value, which was used now; None if it is not held."""
        with self._lock:
            if name in self._values:
                self._values.move_to_end(name)
            return self._values.get(name)

    def put(self, name: str, value: SizedT) -> list[SizedT]:
        """Holds a value, and returns those that had to make room."""
        with self._lock:
            self._values[name] = value
            self._values.move_to_end(name)
            total = sum(each.num_bytes for each in self._values.values())
            gone = []
            while total > self._most_bytes and len(self._values) > self._at_least:
                _, oldest = self._values.popitem(last=False)
                total -= oldest.num_bytes
                gone.append(oldest)
            return gone

    def drop(self, goes: Callable[[SizedT], bool]) -> None:
        """Lets go of the values for which a function says so."""
        with self._lock:
            for name in [name for name, value in self._values.items() if goes(value)]:
                del self._values[name]

    @property
    def names(self) -> list[str]:
        """Returns the names of all values, least recently used first."""
        with self._lock:
            return [*self._values]

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of all values together."""
        with self._lock:
            return sum(value.num_bytes for value in self._values.values())
