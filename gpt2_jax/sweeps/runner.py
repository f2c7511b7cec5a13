"""Runs a sweep in its folder: stage by stage, resuming what an earlier start has left."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpt2_jax.errors import Gpt2JaxError, Preempted, UserError, print_stderr, warn
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.parallel.run_info import read_run_info
from gpt2_jax.sweeps.engines.engine import Engine, Log, stopped_by_signals
from gpt2_jax.sweeps.environment import project_version
from gpt2_jax.sweeps.folder import (
    DIVERGED,
    DONE,
    FAILED,
    FINAL,
    STATES,
    WAITING,
    Status,
    SweepFolder,
)
from gpt2_jax.sweeps.points import Point, check_data
from gpt2_jax.sweeps.results import Results
from gpt2_jax.sweeps.stages import Stages
from gpt2_jax.training.metrics_file import last_step
from gpt2_jax.training.progress import decimals, duration

MakeEngine = Callable[[SweepFolder, str, Log], Engine]
"""Makes the engine for a folder and a base config; its lines go to the log."""


@dataclasses.dataclass(frozen=True)
class SweepEnd:
    """Says where a sweep stands.

    Attributes:
      counts: {state: number of points}, of `done`, `diverged`, `failed` and `waiting`.
      programs_compiled: by all points.
      programs_loaded: by all points, from the compilation cache.
    """

    counts: Mapping[str, int]
    programs_compiled: int
    programs_loaded: int

    @property
    def exit_status(self) -> int:
        """Returns 0 if every point is done or has diverged, which is a result too, otherwise 1."""
        results = self.counts[DONE] + self.counts[DIVERGED]
        return 0 if results == sum(self.counts.values()) else Gpt2JaxError.exit_status


def run_sweep(
    stages: Stages,
    sweep_file: str,
    out: str | os.PathLike[str],
    make_engine: MakeEngine,
    *,
    log: Log = print_stderr,
) -> SweepEnd:
    """Runs all points of a sweep that are not done yet, and writes results.csv.

    Args:
      stages: the checked sweep.
      sweep_file: its file, for sweep.json.
      out: the sweep's folder, which is made if it is missing.
      make_engine: makes what runs the points.
      log: called with lines about the progress.

    Raises:
      UserError: before anything is started, if the folder is of another sweep, is in use or cannot
        be made, or data is missing.
      Preempted: after SIGINT or SIGTERM, once the points that ran have saved.
    """
    folder = SweepFolder(resolve_path(out, "--out"))
    folder.check(stages)
    check_points(stages)
    _make(folder.path)
    with lock_folder(folder.path, f"--out {out}"):
        folder.write_sweep(stages, sweep_file)
        engine = make_engine(folder, stages.sweep.base, log)
        exit_status = Gpt2JaxError.exit_status
        try:
            with stopped_by_signals(engine, log):
                points = _run_stages(stages, folder, engine, log)
            end = _end(folder, points)
            exit_status = Preempted.exit_status if engine.stop else end.exit_status
        except Gpt2JaxError as error:
            exit_status = error.exit_status
            raise
        finally:
            engine.close(exit_status)
    if engine.stop:
        done = end.counts[DONE] + end.counts[DIVERGED]
        raise Preempted(f"stopped: {done} points are done; run the same command again to continue")
    return end


def check_points(stages: Stages) -> None:
    """Refuses points whose data is missing.

    Raises:
      UserError: naming the folder, and how it is made.
    """
    check_data([point for name in stages.sweep.stages for point in stages.may_have(name)])


def _end(folder: SweepFolder, points: Sequence[Point]) -> SweepEnd:
    statuses = [folder.status(point.name) for point in points]
    return SweepEnd(
        {state: sum(each.state == state for each in statuses) for state in STATES},
        sum(each.programs_compiled for each in statuses),
        sum(each.programs_loaded for each in statuses),
    )


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


def _run_stages(stages: Stages, folder: SweepFolder, engine: Engine, log: Log) -> list[Point]:
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
        progress = _Progress(stages, name, folder, results, engine, own, log)
        todo = [point for point in own if folder.status(point.name).state not in FINAL]
        progress.begin(todo)
        if todo:
            folder.add_environment([project_version()])

        def ended(
            point: Point, status: Status, points: list[Point] = points, show: _Progress = progress
        ) -> None:
            results.write(points)
            show.ended(point, status)

        engine.run(todo, ended, progress.show)
        folder.add_environment(read_run_info(folder.run_info(p.name)).environment for p in own)
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
        engine: Engine,
        points: Sequence[Point],
        log: Log,
    ) -> None:
        self._metric, self._folder, self._engine = stages.sweep.metric, folder, engine
        self._results = results
        self._stage, self._points, self._log = stage, points, log
        self._began = time.monotonic()
        self._todo: dict[str, Point] = {}
        self._trained = 0  # tokens since the start of the stage

    def begin(self, todo: Sequence[Point]) -> None:
        self._todo = {point.name: point for point in todo}
        done = len(self._points) - len(todo)
        left = sum(point.tokens for point in todo)
        self._log(
            f"stage {self._stage}: {len(self._points)} points, {done} of them done before; "
            f"{left:,} tokens to train{self._at_once()}"
        )

    def ended(self, point: Point, status: Status) -> None:
        if status.state != WAITING:
            self._todo.pop(point.name, None)
        if status.state == DONE:  # others stopped early
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

    def _at_once(self) -> str:
        count = self._engine.at_once
        return "" if count is None else f", {count} at a time"

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
