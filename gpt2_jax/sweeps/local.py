"""The local engine: runs points as commands on this machine, so many at a time."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from gpt2_jax.errors import (
    NumbersWentBad,
    PeersLost,
    Preempted,
    StorageError,
    UserError,
    shortened,
)
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.paths import is_remote
from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING, Status, SweepFolder
from gpt2_jax.sweeps.points import Point
from gpt2_jax.sweeps.slots import Slot, start_in

TRAIN = (sys.executable, "-m", "gpt2_jax", "train")
"""The command that trains, to which the flags of a point are added."""

_POLL_S = 0.02
_SHOW_EVERY_S = 60.0
# A point that something else than this process stops again and again is left waiting.
_MOST_PREEMPTIONS = 10
_RETRIED = (PeersLost.exit_status, StorageError.exit_status)
_LONGEST_MESSAGE = 500


@dataclasses.dataclass
class _Attempt:
    """One attempt at a point, while it runs."""

    point: Point
    process: subprocess.Popen[bytes]
    before: Status
    log: Path
    began: float
    files: contextlib.ExitStack


class LocalEngine:
    """Runs points in slots, retries those that a restart can help, and can be asked to stop."""

    def __init__(
        self,
        folder: SweepFolder,
        base: str,
        slots: Sequence[Slot],
        *,
        train: Sequence[str] = TRAIN,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the engine.

        Args:
          folder: of the sweep.
          base: the base config.
          slots: what the points run on; as many run at the same time.
          train: the command that trains a point.
          log: called with lines about points that must wait.
          clock: returns seconds and never goes back.
        """
        self._folder, self._base, self._train = folder, base, train
        self._log, self._clock = log, clock
        self._free = list(reversed(slots))
        self._running: list[tuple[Slot, _Attempt]] = []
        self._retried: set[str] = set()
        self._preempted: collections.Counter[str] = collections.Counter()
        self._in_use: dict[str, float] = {}
        self.stop = False

    @property
    def running(self) -> list[str]:
        """Returns the names of the points that run now."""
        return [attempt.point.name for _, attempt in self._running]

    def run(
        self,
        points: Sequence[Point],
        on_end: Callable[[Point, Status], None],
        on_wait: Callable[[], None],
    ) -> None:
        """Runs the points until all have ended, or `stop` is set and those that run have saved.

        Args:
          points: to run, in this order.
          on_end: called when a point is done, has diverged or failed, or is left waiting.
          on_wait: called about once a minute.
        """
        waiting = collections.deque(points)
        shown, told = self._clock(), False
        try:
            while self._running or (waiting and not self.stop):
                self._start(waiting)
                if self.stop and not told:
                    told = True
                    self._send(signal.SIGTERM)
                ended = [pair for pair in self._running if pair[1].process.poll() is not None]
                for slot, attempt in ended:
                    self._running.remove((slot, attempt))
                    self._free.append(slot)
                    status, again = self._end(attempt)
                    if again:
                        waiting.append(attempt.point)
                    else:
                        on_end(attempt.point, status)
                if self._clock() - shown >= _SHOW_EVERY_S:
                    shown = self._clock()
                    on_wait()
                if not ended:
                    time.sleep(_POLL_S)
        finally:
            self._send(signal.SIGKILL)  # after an exception alone, since otherwise none is left
            for _, attempt in self._running:
                attempt.process.wait()

    def _start(self, waiting: collections.deque[Point]) -> None:
        """Starts points in free slots, but none whose workdir another process still uses."""
        for _ in range(len(waiting)):
            if not self._free or self.stop:
                return
            point = waiting.popleft()
            if self._must_wait(point):
                waiting.append(point)
            else:
                slot = self._free.pop()
                self._running.append((slot, self._attempt(point, slot)))

    def _must_wait(self, point: Point) -> bool:
        """Returns whether a process of an earlier start, which was killed, still saves the point.

        It looks once a second.
        """
        now = self._clock()
        if now < self._in_use.get(point.name, now):
            return True
        workdir = self._folder.workdir(point.name)
        if not (workdir / "lock").exists():
            return False
        try:
            with lock_folder(workdir, os.fspath(workdir)):
                return False
        except UserError as error:
            if point.name not in self._in_use:
                self._log(f"waiting for {point.name}: {error}")
            self._in_use[point.name] = now + 1
            return True

    def _attempt(self, point: Point, slot: Slot) -> _Attempt:
        before = self._folder.status(point.name)
        begun = Status(None, WAITING, "", before.seconds, before.attempts + 1)
        self._folder.write_status(point.name, begun)
        files = contextlib.ExitStack()
        log = self._folder.point(point.name) / "log.txt"
        if is_remote(log):
            log = Path(files.enter_context(tempfile.TemporaryDirectory())) / "log.txt"
        file = files.enter_context(log.open("ab"))
        flags = point.flags(self._base, self._folder.workdir(point.name))
        try:
            process = start_in(slot, [*self._train, *flags], file)
        except OSError as error:
            files.close()
            raise UserError(f"cannot run {self._train[0]}: {error.strerror}") from error
        return _Attempt(point, process, begun, log, self._clock(), files)

    def _end(self, attempt: _Attempt) -> tuple[Status, bool]:
        """Writes the status of an attempt; returns it and whether the point is to run again."""
        code = attempt.process.returncode
        exit_status = code if code >= 0 else 128 - code
        state, again = self._judge(attempt.point.name, exit_status)
        status = Status(
            exit_status,
            state,
            "" if state == DONE else _last_line(attempt.log),
            round(attempt.before.seconds + self._clock() - attempt.began, 3),
            attempt.before.attempts,
        )
        if is_remote(folder := self._folder.point(attempt.point.name)):
            write_file(folder / "log.txt", attempt.log.read_bytes())
        attempt.files.close()
        self._folder.write_status(attempt.point.name, status)
        return status, again

    def _judge(self, name: str, exit_status: int) -> tuple[str, bool]:
        """Returns the state after an exit status, and whether the point is to run again."""
        if exit_status == 0:
            return DONE, False
        if exit_status == NumbersWentBad.exit_status:
            return DIVERGED, False
        was_killed = exit_status > 128
        if self.stop and (was_killed or exit_status == Preempted.exit_status):
            return WAITING, False
        if exit_status == Preempted.exit_status:
            self._preempted[name] += 1
            return WAITING, self._preempted[name] < _MOST_PREEMPTIONS
        if (was_killed or exit_status in _RETRIED) and name not in self._retried:
            self._retried.add(name)
            return WAITING, not self.stop
        return FAILED, False

    def _send(self, number: signal.Signals) -> None:
        for _, attempt in self._running:
            with contextlib.suppress(ProcessLookupError):
                attempt.process.send_signal(number)


@contextlib.contextmanager
def stopped_by_signals(engine: LocalEngine, log: Callable[[str], None]) -> Iterator[None]:
    """Makes SIGINT and SIGTERM stop the engine in the block; a second one kills its commands."""

    def request(number: int, frame: FrameType | None) -> None:
        if engine.stop:
            raise KeyboardInterrupt
        engine.stop = True
        log("stopping: the points that run save their state; a second signal kills them")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _last_line(log: Path) -> str:
    """Returns the last line that a command has printed, without `error: ` at its start."""
    with contextlib.suppress(OSError):
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        return shortened(last.removeprefix("error: "), _LONGEST_MESSAGE)
    return ""
