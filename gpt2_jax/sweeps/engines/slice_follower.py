"""What the processes of a slice but process 0 do: train the points that process 0 names."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from gpt2_jax.errors import PeersLost, Preempted
from gpt2_jax.sweeps.engines import attempts
from gpt2_jax.sweeps.engines.engine import Log
from gpt2_jax.sweeps.engines.slice_files import OVER, START, Answer, Order, SliceFiles
from gpt2_jax.sweeps.engines.slots import Slot, start_in

PATIENCE_S = 600.0
"""How long a follower waits for a sign of life of the leader."""
# How long a command may go on after the leader has begun the next turn, and how long the leader may
# take to stop after this process was asked to.
_GRACE_S = 60.0
_STOPPING_S = 120.0


class Follower:
    """Does what process 0 wants until the sweep is over; see `slice_files.py`."""

    def __init__(
        self,
        folder: Path,
        process: int,
        *,
        train: Sequence[str] = attempts.TRAIN,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Prepares to follow.

        Args:
          folder: of the sweep.
          process: the number of this process, at least 1.
          train: the command that trains a point.
          log: called with lines about commands that failed.
          clock: returns seconds and never goes back.
          patience_s: how long to wait for the leader.
        """
        self._files, self._process, self._train = SliceFiles(folder), process, tuple(train)
        self._clock, self._log, self._patience_s = clock, log, patience_s
        self._command: subprocess.Popen[bytes] | None = None
        self._answer = Answer()
        self._turn_began = clock()
        self.stopping = 0

    def run(self) -> int:
        """Follows until the end of the sweep, and returns its exit status.

        Raises:
          PeersLost: if the leader is silent for too long.
        """
        first = self._files.order()
        # An earlier sweep may have left it, over or killed: then it is not meant for this process.
        ignored = None if first is None else first.session
        heard, last = self._clock(), first
        with tempfile.TemporaryDirectory() as place, self._stopped_by_signals():
            log = Path(place) / "log.txt"
            try:
                while True:
                    order = self._files.order()
                    if order is not None and order != last:
                        heard, last = self._clock(), order
                    if order is not None and _is_alive(order, first):
                        ignored = None
                    if order is not None and order.session != ignored:
                        if order.wanted != OVER:
                            self._obey(order, log)
                        elif order.session == self._answer.session:
                            return order.exit_status
                        else:
                            ignored = order.session
                    self._report(log)
                    patience = _STOPPING_S if self.stopping else self._patience_s
                    if self._clock() - heard > patience:
                        return self._alone()
                    time.sleep(self._files.poll_s)
            finally:
                self._kill()

    def _alone(self) -> int:
        if self.stopping:
            return Preempted.exit_status
        raise PeersLost(
            f"process {self._process} of this sweep has not heard of process 0 for "
            f"{self._patience_s:g} s: start all of them with the same --out, which must be on a "
            "disk that they share or in a bucket"
        )

    def _obey(self, order: Order, log: Path) -> None:
        """Gets ready for the turn, or starts its command."""
        turn = (order.session, order.turn)
        if turn != (self._answer.session, self._answer.turn):
            self._answer = Answer(*turn, stopping=bool(self.stopping))
            self._turn_began = self._clock()
        if not self._answer.ready:
            late = self._clock() - self._turn_began > _GRACE_S
            if self._command is not None and self._command.poll() is None and not late:
                return  # it belongs to the turn before, and may still save
            self._kill()
            self._say(ready=True)
        elif order.wanted == START and self._command is None and self._answer.exit_status is None:
            with log.open("wb") as file:
                words = [*self._train, *order.flags]
                self._command = start_in(Slot(), words, file, order.variables)

    def _report(self, log: Path) -> None:
        """Says how the command has ended, and whether this process was asked to stop."""
        stopping = bool(self.stopping)
        if self.stopping and not self._answer.stopping:
            if self._command is not None:
                self._command.send_signal(signal.SIGTERM)
            if self._answer.session:
                self._say(stopping=True)
        code = None if self._command is None else self._command.poll()
        if code is None or not self._answer.ready or self._answer.exit_status is not None:
            return
        exit_status = attempts.shell_status(code)
        message = "" if exit_status == 0 else attempts.last_line(log)
        self._command = None
        if exit_status not in (0, Preempted.exit_status):
            self._log(f"process {self._process} ended with {exit_status}: {message}")
        self._say(exit_status=exit_status, message=message, stopping=stopping)

    def _say(self, **changes: object) -> None:
        self._answer = dataclasses.replace(self._answer, **changes)  # type: ignore[arg-type]
        self._files.write_answer(self._process, self._answer)

    def _kill(self) -> None:
        if self._command is not None:
            self._command.kill()
            self._command.wait()
            self._command = None

    @contextlib.contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Makes SIGINT and SIGTERM ask to stop in the block; a second one ends this process."""

        def request(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = number

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, request) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _is_alive(order: Order, first: Order | None) -> bool:
    """Returns whether the leader whose order was found at the start is still alive.

    Args:
      order: the newest order.
      first: the one that was found at the start.
    """
    if first is None or order.session != first.session:
        return False
    return order.wanted != OVER and order.beat != first.beat
