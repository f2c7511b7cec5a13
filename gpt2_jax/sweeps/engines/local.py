"""The local engine: runs points as commands on this machine, so many at a time."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from gpt2_jax.errors import UserError
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.sweeps.engines import attempts
from gpt2_jax.sweeps.engines.engine import Log, OnEnd, OnWait
from gpt2_jax.sweeps.engines.slots import Slot, start_in
from gpt2_jax.sweeps.folder import Status, SweepFolder
from gpt2_jax.sweeps.points import Point

_POLL_S = 0.02
_SHOW_EVERY_S = 60.0
# A point that something else than this process stops again and again is left waiting.
_MOST_PREEMPTIONS = 10


class Process(Protocol):
    """Defines what the engine does with a command that runs, as with a `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal, or None while the command runs."""
        ...

    def send_signal(self, sig: int) -> None:
        """Sends a signal."""
        ...

    def wait(self) -> int:
        """Waits for the end, and returns the exit status."""
        ...


# Starts a command in a slot: the flags after the command that trains, further environment
# variables, and the file for its output.
Start = Callable[[Slot, Sequence[str], Mapping[str, str], IO[bytes]], Process]


@dataclasses.dataclass
class _Attempt:
    """One attempt at a point, while it runs."""

    point: Point
    process: Process
    begun: Status
    log: Path
    began: float
    files: contextlib.ExitStack


class LocalEngine:
    """Runs points in slots, retries those that a restart can help, and can be asked to stop."""

    when_stopped = "the points that run save their state; a second signal kills them"

    def __init__(
        self,
        folder: SweepFolder,
        base: str,
        slots: Sequence[Slot],
        *,
        train: Sequence[str] = attempts.TRAIN,
        start: Start | None = None,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the engine.

        Args:
          folder: of the sweep.
          base: the base config.
          slots: what the points run on; as many run at the same time.
          train: the command that trains a point.
          start: starts a point otherwise than by `train`.
          log: called with lines about points that must wait.
          clock: returns seconds and never goes back.
        """
        self._folder, self._base, self._begin = (
            folder,
            base,
            start or functools.partial(_train, train),
        )
        self._log, self._clock = log, clock
        self._free = list(reversed(slots))
        self._running: list[tuple[Slot, _Attempt]] = []
        self._identity = secrets.token_hex(6)  # of this start of the sweep
        self._in_use: dict[str, float] = {}
        self.stop = False
        self.at_once: int | None = len(slots)

    @property
    def running(self) -> list[str]:
        """Returns the names of the points that run now."""
        return [attempt.point.name for _, attempt in self._running]

    def run(self, points: Sequence[Point], on_end: OnEnd, on_wait: OnWait) -> None:
        """Runs the points until all have ended, or `stop` is set and those that run have saved."""
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

    def close(self, exit_status: int) -> None:
        """Does nothing: no command is left after `run`."""

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
        begun = attempts.begin(self._folder, point.name, self._identity)
        files = contextlib.ExitStack()
        log, file = files.enter_context(attempts.open_log(self._folder, point.name))
        flags = point.flags(self._base, self._folder.workdir(point.name))
        try:
            variables = attempts.variables(self._folder, point.name)
            process = self._begin(slot, flags, variables, file)
        except BaseException:
            files.close()
            raise
        return _Attempt(point, process, begun, log, self._clock(), files)

    def _end(self, attempt: _Attempt) -> tuple[Status, bool]:
        """Writes the status of an attempt; returns it and whether the point is to run again."""
        name = attempt.point.name
        exit_status = attempts.shell_status(attempt.process.wait())
        state, again = attempts.judge(
            exit_status,
            attempt.begun.earlier,
            stopping=self.stop,
            most_preemptions=_MOST_PREEMPTIONS,
        )
        seconds = self._clock() - attempt.began
        status = attempts.end(
            self._folder, name, attempt.begun, exit_status, state, attempt.log, seconds
        )
        attempt.files.close()
        return status, again

    def _send(self, number: signal.Signals) -> None:
        for _, attempt in self._running:
            with contextlib.suppress(ProcessLookupError):
                attempt.process.send_signal(number)


def _train(
    command: Sequence[str],
    slot: Slot,
    flags: Sequence[str],
    variables: Mapping[str, str],
    log: IO[bytes],
) -> Process:
    return start_in(slot, [*command, *flags], log, variables)
