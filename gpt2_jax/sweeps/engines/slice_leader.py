"""The engine of a slice, in process 0: all processes train one point at a time together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from gpt2_jax.errors import NumbersWentBad, PeersLost, Preempted, StorageError, UserError
from gpt2_jax.sweeps.engines import attempts
from gpt2_jax.sweeps.engines.engine import Log, OnEnd, OnWait
from gpt2_jax.sweeps.engines.local import LocalEngine, Process
from gpt2_jax.sweeps.engines.slice_files import OVER, READY, START, Answer, Order, SliceFiles
from gpt2_jax.sweeps.engines.slots import Slot, start_in
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.points import Point

Clock = Callable[[], float]

PATIENCE_S = 300.0
"""How long the leader waits for all followers to be ready."""
_BEAT_S = 20.0
# Between two beats while followers are not ready: one that has just started waits for a beat.
_QUICK_BEAT_S = 1.0
_LOOK_S = 1.0  # between two looks for failures while a point runs
# How long a failed command of one process may leave those of the others without an end.
_OTHERS_S = 30.0
# These say why a point ended. Other statuses follow from what has happened in another process.
_REASONS = (1, UserError.exit_status, NumbersWentBad.exit_status, StorageError.exit_status)
_GOOD = (0, Preempted.exit_status)


class SliceEngine:
    """Runs one point at a time in all processes of a slice; see `slice_files.py`."""

    when_stopped = "the point that runs saves its state; a second signal kills it"
    at_once: int | None = 1

    def __init__(
        self,
        folder: SweepFolder,
        base: str,
        processes: int,
        *,
        train: Sequence[str] = attempts.TRAIN,
        log: Log,
        clock: Clock = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Prepares the engine, and waits until the other processes are ready.

        Args:
          folder: of the sweep.
          base: the base config.
          processes: how many there are, this one included.
          train: the command that trains a point.
          log: called with lines about what the engine waits for.
          clock: returns seconds and never goes back.
          patience_s: how long to wait for others.

        Raises:
          PeersLost: naming the processes that are not ready in time.
        """
        self._group = _Group(SliceFiles(folder.path), processes, clock, patience_s)
        self._train = tuple(train)
        self._local = LocalEngine(folder, base, [Slot()], start=self._start, log=log, clock=clock)
        self._group.on_stop = self._be_asked
        if processes > 1:
            log(f"waiting for the {processes - 1} other processes of the slice")
        try:
            self._group.call(READY)
            while not self._group.all_ready():
                time.sleep(self._group.files.poll_s)
        except BaseException:
            self.close(PeersLost.exit_status)
            raise

    @property
    def stop(self) -> bool:
        """Returns whether the engine was asked to stop."""
        return self._local.stop

    @stop.setter
    def stop(self, asked: bool) -> None:
        """Asks the engine to stop."""
        self._local.stop = asked

    @property
    def running(self) -> list[str]:
        """Returns the name of the point that runs now."""
        return self._local.running

    def run(self, points: Sequence[Point], on_end: OnEnd, on_wait: OnWait) -> None:
        """Runs the points; see `LocalEngine.run`."""
        self._local.run(points, on_end, on_wait)

    def close(self, exit_status: int) -> None:
        """Tells the other processes to end with an exit status."""
        with contextlib.suppress(OSError):
            self._group.call(OVER, exit_status=exit_status)

    def _be_asked(self) -> None:
        self._local.stop = True

    def _start(
        self, slot: Slot, flags: Sequence[str], variables: Mapping[str, str], log: IO[bytes]
    ) -> Process:
        command = [*self._train, *flags]
        start = functools.partial(start_in, slot, command, log, variables)
        self._group.call(READY, turn=True, flags=tuple(flags), variables=dict(variables))
        return _Turn(self._group, start, log)


class _Group:
    """The other processes, as far as their files tell."""

    def __init__(self, files: SliceFiles, processes: int, clock: Clock, patience_s: float) -> None:
        self.files, self.clock = files, clock
        self._others, self._patience_s = range(1, processes), patience_s
        self._order = Order(session=secrets.token_hex(8))
        self._written = self._called = self._looked = clock()
        self._answers: dict[int, Answer] = {}
        self.on_stop: Callable[[], None] = lambda: None

    def call(
        self,
        wanted: str,
        *,
        turn: bool = False,
        flags: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
        exit_status: int = 0,
    ) -> None:
        """Writes a new order; `turn` begins the next turn."""
        number = self._order.turn + turn
        order = Order(
            self._order.session, number, wanted, flags, dict(variables or {}), exit_status
        )
        self._write(dataclasses.replace(order, beat=self._order.beat + 1))
        self._called, self._looked = self.clock(), self.clock() - self.files.poll_s

    def start(self) -> None:
        """Lets all processes start the command of the turn."""
        self._write(dataclasses.replace(self._order, wanted=START, beat=self._order.beat + 1))

    def _write(self, order: Order) -> None:
        self.files.write_order(order)
        self._order, self._written = order, self.clock()

    @property
    def is_alone(self) -> bool:
        """Returns whether there are no other processes."""
        return not self._others

    def look(self, every_s: float = 0.0, beat_s: float = _BEAT_S) -> dict[int, Answer]:
        """Returns what the followers say of this turn.

        Args:
          every_s: the least number of seconds between two looks into their files.
          beat_s: after how many seconds without an order one is written, as a sign of life.
        """
        if self.clock() - self._written >= beat_s:
            self._write(dataclasses.replace(self._order, beat=self._order.beat + 1))
        if self.clock() - self._looked >= max(every_s, self.files.poll_s):
            self._looked = self.clock()
            found = {process: self.files.answer(process) for process in self._others}
            ours = self._order.session
            if any(each.stopping and each.session == ours for each in found.values()):
                self.on_stop()
            self._answers = {
                process: each
                for process, each in found.items()
                if (each.session, each.turn) == (ours, self._order.turn)
            }
        return self._answers

    def all_ready(self) -> bool:
        """Returns whether all processes are ready for the turn.

        Raises:
          PeersLost: if they are not in time.
        """
        answers = self.look(beat_s=max(_QUICK_BEAT_S, self.files.poll_s))
        late = [each for each in self._others if each not in answers or not answers[each].ready]
        if late and self.clock() - self._called > self._patience_s:
            listed = ", ".join(map(str, late[:8])) + (", ..." if len(late) > 8 else "")
            raise PeersLost(
                f"process {listed} of {len(self._others) + 1} of this sweep did not answer in "
                f"{self._patience_s:g} s: start all of them with the same --out, which must be on "
                "a disk that they share or in a bucket"
            )
        return not late

    def failed(self) -> dict[int, Answer]:
        """Returns what the followers say whose command has ended and did not succeed."""
        return {
            process: each
            for process, each in self.look(_LOOK_S).items()
            if each.exit_status is not None and each.exit_status not in _GOOD
        }


class _Turn:
    """The command of a turn, in all processes, as one `Process`."""

    def __init__(self, group: _Group, start: Callable[[], Process], log: IO[bytes]) -> None:
        self._group, self._start, self._log = group, start, log
        self._process: Process | None = None
        self._status: int | None = None
        self._since: float | None = None  # a first command has ended without success
        self._signalled = False

    def poll(self) -> int | None:
        """Returns the exit status once the command has ended here, and why is known."""
        if self._status is not None:
            return self._status
        if self._process is None:
            if self._group.all_ready():
                self._group.start()
                self._process = self._start()
            return None
        code = self._process.poll()
        is_clear = self._signalled or self._group.is_alone or code in _GOOD or code in _REASONS
        if code is not None and is_clear:
            self._status = code
            return code
        failed = self._group.failed()
        if code is None and not failed:
            return None
        now = self._group.clock()
        self._since = now if self._since is None else self._since
        reasons = {k: each for k, each in failed.items() if each.exit_status in _REASONS}
        late = now - self._since >= _OTHERS_S
        if code is None and late:  # it waits for a process that is gone
            self._process.send_signal(signal.SIGKILL)
        elif code is not None and (reasons or late):
            self._status = self._explained(code, reasons or failed)
        return self._status

    def send_signal(self, sig: int) -> None:
        """Sends a signal; a turn that has not started ends by it."""
        self._signalled = True
        if self._process is not None:
            self._process.send_signal(sig)
        elif self._status is None:
            self._status = -sig

    def wait(self) -> int:
        """Waits for the end of the command in this process."""
        if self._status is None and self._process is not None:
            self._status = self._process.wait()
        return self._status or 0

    def _explained(self, code: int, failed: Mapping[int, Answer]) -> int:
        """Returns the status that says most, and adds the message of its process to the log."""
        for process, answer in failed.items():
            line = f"process {process}: {answer.message or f'ended with {answer.exit_status}'}\n"
            self._log.write(line.encode())
            self._log.flush()
            if answer.exit_status in _REASONS:
                return answer.exit_status
        return code
