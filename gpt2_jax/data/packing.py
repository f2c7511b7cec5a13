"""Packs examples of different lengths into rows, anew in every epoch; nothing here imports JAX.

The rows of an epoch follow from (seed, epoch, lengths) alone. Only arrays of example numbers are
kept, so that any row of any epoch can be made again, by any process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable

import numpy as np

OPEN_ROWS = 64
# Packings of this many epochs are kept: a batch may touch two, and a restart asks for earlier ones.
_KEPT = 3
# Packing earlier epochs again for at least so long is announced.
_LONG_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Packing:
    """Holds which examples are in which row.

    Attributes:
      examples: int64 [n], the numbers of the examples, row after row.
      starts: int64 [rows + 1], where each row begins in `examples`, and the end of the last.
    """

    examples: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.starts) - 1

    def row(self, number: int) -> np.ndarray:
        """Returns the numbers of the examples in a row, in the order in which they lie there."""
        return self.examples[self.starts[number] : self.starts[number + 1]]


def pack(lengths: np.ndarray, capacity: int) -> Packing:
    """Puts examples, in the given order, each into the first of the open rows with enough room.

    If none has, the fullest is closed, and a new one opened in its place. Rows are in the order in
    which they were opened.

    Args:
      lengths: int [n], tokens of each example, from 1 to `capacity`.
      capacity: tokens of a row.
    """
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"lengths must be from 1 to {capacity}")
    free = np.zeros(OPEN_ROWS, np.int64)  # rows that do not exist yet are full
    open_rows = [0] * OPEN_ROWS
    count = 0
    row_of = np.empty(len(lengths), np.int64)
    for example, length in enumerate(lengths.tolist()):
        place = int((free >= length).argmax())
        if free[place] < length:
            place = int(free.argmin())
            open_rows[place], free[place] = count, capacity
            count += 1
        free[place] -= length
        row_of[example] = open_rows[place]
    order = np.argsort(row_of, kind="stable")
    return Packing(order, np.searchsorted(row_of[order], np.arange(count + 1)))


def pack_epoch(lengths: np.ndarray, capacity: int, seed: int, epoch: int) -> Packing:
    """Packs the examples in an order, and returns the rows in another, drawn from (seed, epoch)."""
    order = _permutation(len(lengths), f"{seed} {epoch} examples")
    packed = pack(lengths[order], capacity)
    rows = _permutation(len(packed), f"{seed} {epoch} rows")
    sizes = np.diff(packed.starts)[rows]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # Where each example of the shuffled rows was before: its row's start, and its place in the row.
    places = np.repeat(packed.starts[rows] - starts[:-1], sizes) + np.arange(len(lengths))
    return Packing(order[packed.examples[places]], starts)


def _permutation(count: int, purpose: str) -> np.ndarray:
    # NumPy promises that the raw numbers of a bit generator stay the same between versions, which
    # it does not of what its Generator makes of them.
    key = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], "<u8")
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


class Epochs:
    """Numbers the rows of all epochs one after another, without end.

    Epochs have different numbers of rows, so that to find a row the epochs before it are packed
    once, of which only the numbers of rows are kept. It may be used by several threads.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        capacity: int,
        seed: int,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Takes the lengths of at least one example.

        Args:
          lengths, capacity, seed: see `pack_epoch`.
          log: called with a line before a wait for the epochs before a row, as when a run resumes.
        """
        if not len(lengths):
            raise ValueError("there is nothing to pack")
        self._lengths, self._capacity, self._seed = lengths, capacity, seed
        self._begins = [0]  # the number of the first row of each epoch, as far as they are known
        self._packings: dict[int, Packing] = {}
        self._lock = threading.Lock()
        self._log, self._seconds = log, 0.0  # what the last packing took

    def row(self, number: int) -> np.ndarray:
        """Returns the numbers of the examples in row `number`, from 0 on."""
        epoch, row = self.place(number)
        with self._lock:
            return self._packing(epoch).row(row)

    def place(self, number: int) -> tuple[int, int]:
        """Returns (epoch, number of the row within it)."""
        with self._lock:
            if self._begins[-1] <= number:
                self._announce(number)
            while self._begins[-1] <= number:
                epoch = len(self._begins) - 1
                self._begins.append(self._begins[-1] + len(self._packing(epoch)))
            epoch = int(np.searchsorted(self._begins, number, "right")) - 1
            return epoch, number - self._begins[epoch]

    def rows_of(self, epoch: int) -> int:
        """Returns the number of rows of an epoch."""
        with self._lock:
            return len(self._packing(epoch))

    def _announce(self, number: int) -> None:
        """Says how long it takes to pack the epochs up to row `number`, if that is long."""
        known = len(self._begins) - 1
        rows = self._begins[-1] / known if known else len(self._packing(0))
        passed = int((number - self._begins[-1]) / rows)
        if passed * self._seconds >= _LONG_SECONDS:
            self._log(
                f"packing the {passed} epochs before this one, to go on where the run was: about "
                f"{passed * self._seconds:.0f} s"
            )

    def _packing(self, epoch: int) -> Packing:
        if epoch not in self._packings:
            started = time.monotonic()
            made = pack_epoch(self._lengths, self._capacity, self._seed, epoch)
            self._seconds = time.monotonic() - started
            while len(self._packings) >= _KEPT:
                self._packings.pop(next(iter(self._packings)))
            self._packings[epoch] = made
        return self._packings[epoch]
