"""Runs a sweep in its folder: stage by stage, resuming what an earlier start has left."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2_jax.errors import Preempted, UserError, print_stderr, warn
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, FINAL, WAITING, Status, SweepFolder
from gpt2_jax.sweeps.local import TRAIN, LocalEngine, stopped_by_signals
from gpt2_jax.sweeps.points import Point, check_data
from gpt2_jax.sweeps.results import Results
from gpt2_jax.sweeps.slots import Slot
from gpt2_jax.sweeps.stages import Stages
from gpt2_jax.training.metrics_file import last_step
from gpt2_jax.training.progress import decimals, duration

Log = Callable[[str], None]


def run_sweep(
    stages: Stages,
    sweep_file: str,
    out: str | os.PathLike[str],
    slots: Sequence[Slot],
    *,
    train: Sequence[str] = TRAIN,
    log: Log = print_stderr,
) -> dict[str, int]:
    """Runs all points of a sweep that are not done yet, and writes results.csv.

    Args:
      stages: the checked sweep.
      sweep_file: its file, for sweep.json.
      out: the sweep's folder, which is made if it is missing.
      slots: what the points run on.
      train: the command that trains a point.
      log: called with lines about the progress.

    Returns:
      {state: number of points}, of `done`, `diverged`, `failed` and `waiting`.

    Raises:
      UserError: before anything is started, if the folder is of another sweep, is in use or cannot
        be made, or data is missing.
      Preempted: after SIGINT or SIGTERM, once the points that ran have saved.
    """
    folder = SweepFolder(resolve_path(out, "--out"))
    folder.check(stages)
    check_data([point for name in stages.sweep.stages for point in stages.may_have(name)])
    _make(folder.path)
    with lock_folder(folder.path, f"--out {out}"):
        folder.write_sweep(stages, sweep_file)
        engine = LocalEngine(folder, stages.sweep.base, slots, train=train, log=log)
        with stopped_by_signals(engine, log):
            points = _run_stages(stages, folder, engine, len(slots), log)
        counts = folder.count(points)
    if engine.stop:
        raise Preempted(
            f"stopped: {counts[DONE] + counts[DIVERGED]} points are done; run the same command "
            "again to continue"
        )
    return counts


def points_so_far(stages: Stages, folder: SweepFolder | None) -> list[Point]:
    """Returns the points of all stages that are known from what has been done in the folder."""
    points: list[Point] = []
    results = Results(folder) if folder else None
    for name in stages.sweep.stages:
        if name in stages.known:
            points += stages.known[name]
        elif folder and results and all(folder.status(p.name).state != WAITING for p in points):
            points += _choose(stages, name, results, points)
        else:
            break
    return points


def _run_stages(
    stages: Stages, folder: SweepFolder, engine: LocalEngine, workers: int, log: Log
) -> list[Point]:
    """Runs one stage after the other; returns the points of those that were reached."""
    points: list[Point] = []
    results = Results(folder)
    for name in stages.sweep.stages:
        if name in stages.known:
            own = stages.known[name]
        else:
            own = _choose(stages, name, results, points)
            for other in folder.others({name: own}):
                warn(f"{other} was run for what stage {name!r} would have been; it is left out")
        points += own
        for point in own:
            folder.write_point(point, stages.sweep.base)
        results.write(points)
        progress = _Progress(stages, name, folder, results, engine, own, workers, log)
        todo = [point for point in own if folder.status(point.name).state not in FINAL]
        progress.begin(todo)

        def ended(
            point: Point, status: Status, points: list[Point] = points, show: _Progress = progress
        ) -> None:
            results.write(points)
            show.ended(point, status)

        engine.run(todo, ended, progress.show)
        if engine.stop or any(folder.status(point.name).state == WAITING for point in own):
            break
    return points


def _choose(stages: Stages, name: str, results: Results, before: Sequence[Point]) -> list[Point]:
    finished: dict[str, list[tuple[Point, float | None]]] = {}
    for point in before:
        value = results.score(point, stages.sweep.metric)
        finished.setdefault(point.stage, []).append((point, value))
    return stages.choose(name, finished)


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make --out {path}: {error.strerror}") from error


class _Progress:
    """Prints what runs, what is left in a stage and how long that may take."""

    def __init__(
        self,
        stages: Stages,
        stage: str,
        folder: SweepFolder,
        results: Results,
        engine: LocalEngine,
        points: Sequence[Point],
        workers: int,
        log: Log,
    ) -> None:
        self._metric, self._folder, self._engine = stages.sweep.metric, folder, engine
        self._results = results
        self._stage, self._points, self._workers, self._log = stage, points, workers, log
        self._began = time.monotonic()
        self._todo: dict[str, Point] = {}
        self._trained = 0  # tokens since the start of the stage

    def begin(self, todo: Sequence[Point]) -> None:
        self._todo = {point.name: point for point in todo}
        done = len(self._points) - len(todo)
        left = sum(point.tokens for point in todo)
        self._log(
            f"stage {self._stage}: {len(self._points)} points, {done} of them done before; "
            f"{left:,} tokens to train, {self._workers} at a time"
        )

    def ended(self, point: Point, status: Status) -> None:
        if status.state != WAITING:
            self._todo.pop(point.name, None)
            self._trained += point.tokens
        words = [f"{point.name} {status.state} after {duration(status.seconds)}"]
        value = self._results.score(point, self._metric)
        if value is not None:
            words.append(f"{self._metric} {decimals(value)}")
        elif status.state == DONE:
            names = ", ".join(self._results.scores(point)) or "nothing"
            words.append(f"without {self._metric}: its last validation has {names}")
        if status.state == FAILED:
            words.append(f"exit status {status.exit_status}: {status.message}")
        self._log(f"{self._counted()} {', '.join(words)}{self._left()}")

    def show(self) -> None:
        running = [
            f"{name} at step {self._step(name)} of {self._todo[name].config.train.total_steps}"
            for name in self._engine.running
        ]
        self._log(f"{self._counted()} running: {', '.join(running)}{self._left()}")

    def _step(self, name: str) -> int:
        with contextlib.suppress(OSError):
            return last_step(self._folder.workdir(name))
        return 0

    def _counted(self) -> str:
        total = len(self._points)
        return f"[{total - len(self._todo)}/{total}]"

    def _left(self) -> str:
        waiting = len(self._todo) - len(self._engine.running)
        left = sum(point.tokens for point in self._todo.values())
        text = f"; {len(self._engine.running)} running, {waiting} waiting"
        if not self._trained or not left:
            return text
        seconds = time.monotonic() - self._began
        return f"{text}, eta {duration(left * seconds / self._trained)}"
