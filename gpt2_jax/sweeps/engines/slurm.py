"""The Slurm engine: submits the points of a stage as one array job, a task each, and waits.

The jobs do not depend on the process that has submitted them. If that is stopped or killed, the
next start of the sweep finds the tasks that are still in the queue by the names of their jobs,
which are in the folder `slurm` of the sweep's folder, and submits only what is missing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2_jax.errors import NOT_JSON, UserError, shortened, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote
from gpt2_jax.sweeps.engines.engine import Log, OnEnd, OnWait
from gpt2_jax.sweeps.folder import FINAL, SweepFolder
from gpt2_jax.sweeps.points import Point

_MODULE = "gpt2_jax.sweeps.engines.array_task"
_POLL_S = 5.0
# How long the status of a task may be on its way, over a network disk, after the task has ended.
_SETTLE_S = 15.0
_SHOW_EVERY_S = 60.0
_LARGEST_ARRAY = 1000  # Slurm's default limit is 1001 tasks
_REQUEST_S = 60
# What the engine itself tells sbatch.
_OURS = ("--array", "-a", "--job-name", "-J", "--parsable", "--wait", "-W", "--wrap", "--test-only")


@dataclasses.dataclass(frozen=True)
class _Task:
    """A task in the queue.

    Attributes:
      array: the name of its job.
      index: its number in the array.
      running: whether it has begun.
    """

    array: str
    index: int
    running: bool


class SlurmEngine:
    """Submits array jobs and watches what their tasks write into the folder of the sweep."""

    when_stopped = (
        "the jobs go on; the same command collects their results later, and scancel ends them"
    )

    def __init__(
        self,
        folder: SweepFolder,
        out: str,
        options: Sequence[str],
        script: Path,
        *,
        at_once: int | None,
        log: Log,
        command: Sequence[str] = (sys.executable, "-m", _MODULE),
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = _POLL_S,
        settle_s: float = _SETTLE_S,
    ) -> None:
        """Prepares the engine.

        Args:
          folder: of the sweep.
          out: its name, as the tasks are given it.
          options: of sbatch, such as `--partition=gpu`.
          script: launch/slurm/train.sbatch.
          at_once: how many points may run at the same time; None for as many as Slurm starts.
          log: called with lines about the jobs.
          command: what a task runs, before its arguments.
          clock: returns seconds and never goes back.
          poll_s: seconds between two looks at the queue.
          settle_s: how long the status of a task may be on its way.
        """
        self._folder, self._out, self._options, self._script = folder, out, options, script
        self.at_once, self._log, self._command = at_once, log, tuple(command)
        self._clock, self._poll_s, self._settle_s = clock, poll_s, settle_s
        self._tasks: dict[tuple[str, int], str] = {}
        self._running: list[str] = []
        self._warned = self.stop = False

    @property
    def running(self) -> list[str]:
        """Returns the names of the points that run now."""
        return self._running

    def close(self, exit_status: int) -> None:
        """Does nothing: the jobs go on."""

    def run(self, points: Sequence[Point], on_end: OnEnd, on_wait: OnWait) -> None:
        """Submits the points that are not in the queue, and waits until all tasks have ended."""
        if not points:
            return
        self._read_arrays()
        queued = self._queue(must=True) or {}
        found = [point for point in points if point.name in queued]
        if found:
            self._log(f"{len(found)} points are in Slurm's queue since an earlier start")
        left = [point for point in points if point.name not in queued]
        for first in range(0, len(left), _LARGEST_ARRAY):
            self._submit(left[first : first + _LARGEST_ARRAY])
        self._watch(points, on_end, on_wait)

    def _watch(self, points: Sequence[Point], on_end: OnEnd, on_wait: OnWait) -> None:
        waiting = {point.name: point for point in points}
        gone: dict[str, float] = {}
        shown = self._clock()
        while waiting and not self.stop:
            queued = self._queue()
            now = self._clock()
            self._running = [n for n in waiting if queued and n in queued and queued[n].running]
            for name, point in list(waiting.items()):
                status = self._folder.status(name)
                if queued is not None and name not in queued:
                    gone.setdefault(name, now)
                elif queued is not None:  # one answer of Slurm may lack a task
                    gone.pop(name, None)
                if status.state in FINAL or now - gone.get(name, now) >= self._settle_s:
                    del waiting[name]
                    self._running = [other for other in self._running if other != name]
                    on_end(point, status)
            if now - shown >= _SHOW_EVERY_S:
                shown = now
                on_wait()
            self._pause(self._poll_s if waiting else 0)

    def _pause(self, seconds: float) -> None:
        """Waits, but not long after it was asked to stop."""
        until = self._clock() + seconds
        while not self.stop and (left := until - self._clock()) > 0:
            time.sleep(min(left, 0.2))

    def _submit(self, points: Sequence[Point]) -> None:
        array = f"sweep-{secrets.token_hex(6)}"
        self._write_array(array, points, "")
        limit = f"%{self.at_once}" if self.at_once is not None else ""
        output = "%x-%A_%a.log"
        if not is_remote(self._folder.path):
            output = os.fspath(self._folder.path / "slurm" / output)
        words = ["sbatch", "--parsable", f"--array=0-{len(points) - 1}{limit}"]
        words += [f"--job-name={array}", f"--output={output}", *self._options, str(self._script)]
        path = self._folder.path / "slurm" / f"{array}.json"
        try:
            job = _slurm([*words, *self._command, self._out, os.fspath(path)])
        except UserError:
            path.unlink(missing_ok=True)
            raise
        job = job.strip().partition(";")[0]
        self._write_array(array, points, job)
        self._log(f"Slurm job {job} has {len(points)} tasks; scancel {job} ends them")

    def _queue(self, must: bool = False) -> dict[str, _Task] | None:
        """Returns {point: its task in the queue}, or None if Slurm does not answer now."""
        arrays = ",".join(sorted({array for array, _ in self._tasks}))
        if not arrays:
            return {}
        words = ["squeue", "--noheader", "--array", f"--name={arrays}", "--format=%j|%K|%T"]
        try:
            lines = _slurm(words).splitlines()
        except UserError as error:
            if must:
                raise
            if not self._warned:
                warn(f"{error}; trying again")
            self._warned = True
            return None
        tasks = {}
        for line in lines:
            array, index, state = line.strip().split("|")
            if index.isdigit() and (array, int(index)) in self._tasks:
                name = self._tasks[array, int(index)]
                tasks[name] = _Task(array, int(index), state == "RUNNING")
        return tasks

    def _read_arrays(self) -> None:
        """Reads which points the arrays of earlier starts have."""
        folder = self._folder.path / "slurm"
        for path in sorted(folder.glob("*.json")) if folder.exists() else []:
            try:
                names = json.loads(path.read_bytes())["points"]
            except (*NOT_JSON, KeyError, TypeError) as error:
                raise UserError(f"cannot read {path} ({error}): restore or remove it") from error
            self._tasks |= {(path.stem, index): name for index, name in enumerate(names)}

    def _write_array(self, array: str, points: Sequence[Point], job: str) -> None:
        """Writes which points an array has: before it is submitted, so that it is always found."""
        names = [point.name for point in points]
        self._tasks |= {(array, index): name for index, name in enumerate(names)}
        folder = self._folder.path / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"points": names, "job": job}, indent=2).encode() + b"\n"
        write_file(folder / f"{array}.json", content)


def sbatch_options(text: str, gpus: int | None) -> list[str]:
    """Returns the options of sbatch in a text, with so many GPUs for each point.

    Raises:
      UserError: if it is no list of options, or has one that belongs to the engine.
    """
    try:
        options = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--sbatch {text!r}: {error}") from error
    for word in options:
        name = word.partition("=")[0]
        if name in _OURS or (name[:2] in _OURS and not name.startswith("--")):
            raise UserError(f"--sbatch cannot have {name}, which the sweep itself sets")
    if options and not options[0].startswith("-"):
        raise UserError(f"--sbatch must be options of sbatch, such as --time=2:00:00, not {text!r}")
    return [*([] if gpus is None else [f"--gpus-per-node={gpus}"]), *options]


def check_installed() -> None:
    """Refuses a machine that cannot submit jobs.

    Raises:
      UserError: naming the command of Slurm that is not installed.
    """
    for command in ("sbatch", "squeue"):
        if shutil.which(command) is None:
            raise _missing(command)


def _missing(command: str) -> UserError:
    return UserError(
        f"--engine slurm needs Slurm's {command}, which is not installed here: run it on a machine "
        "that submits jobs"
    )


def _slurm(words: Sequence[str]) -> str:
    """Returns what a command of Slurm prints.

    Raises:
      UserError: if it is not installed, fails or does not answer.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_REQUEST_S, check=False
        )
    except FileNotFoundError as error:
        raise _missing(words[0]) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"Slurm's {words[0]} has not answered in {_REQUEST_S} s") from error
    if done.returncode:
        reason = shortened(done.stderr.strip() or f"exit status {done.returncode}", 300)
        raise UserError(f"Slurm's {words[0]} failed: {reason}")
    return done.stdout
