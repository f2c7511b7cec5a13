"""Reads what the points of a sweep have reached, from the sweep's folder or a record's."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON, UserError, did_you_mean, short_repr
from gpt2_jax.sweeps.folder import STATES, WAITING, read_object
from gpt2_jax.sweeps.report.position_file import read_losses
from gpt2_jax.sweeps.stages import higher_is_better
from gpt2_jax.training.metrics_file import last_scores

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Describes one point: what was run, how it ended, and what it recorded.

    Attributes:
      name: of the point.
      stage: the stage that it belongs to.
      arm: what it has in common with the points that differ only in the seed.
      seed: its seed.
      overrides: {knob: value}, all that differs from the base config.
      command: that runs it.
      state: `done`, `diverged`, `failed` or `waiting`.
      message: why it has ended, unless it is done.
      seconds: that its attempts took.
      lines: of its metrics.jsonl, in order; empty if there is none.
      scores: the finite numbers of its last validation, at the last step of the run.
      last_validation: the step of that validation, 0 without any.
      config: {section: {knob: value}}; empty if there is no config.json.
      loss_by_position: the loss at each position of the context in that validation, None where no
        token was scored; empty if it was not recorded.
    """

    name: str
    stage: str
    arm: str
    seed: int
    overrides: Mapping[str, Any]
    command: str
    state: str
    message: str
    seconds: float
    lines: Sequence[Line]
    scores: Mapping[str, float]
    last_validation: int
    config: Mapping[str, Any]
    loss_by_position: Sequence[float | None] = ()


@dataclass(frozen=True)
class SweepOutcomes:
    """Describes a sweep and all of its points.

    Attributes:
      folder: that was read.
      sweep_file: the file that defined the sweep.
      base: the config that all points are based on.
      metric: the number that is compared.
      delta: the difference of it that does not matter, or None if none was chosen.
      baseline: the arm that others are compared with, or None.
      environment: {what: value} of the commit, versions and machine, as far as recorded.
      points: in the order of the stages, arms and seeds.
    """

    folder: Path
    sweep_file: str
    base: str
    metric: str
    delta: float | None
    baseline: str | None
    environment: Mapping[str, str]
    points: Sequence[Outcome]

    @property
    def higher_is_better(self) -> bool:
        """Returns whether more of the metric is better, as of an accuracy."""
        return higher_is_better(self.metric)

    @property
    def stages(self) -> list[str]:
        """Returns the stages that have points, in order."""
        return list(dict.fromkeys(point.stage for point in self.points))

    def arms(self, stage: str) -> dict[str, list[Outcome]]:
        """Returns {arm: its points} of a stage, the baseline first."""
        arms: dict[str, list[Outcome]] = {}
        for point in self.points:
            if point.stage == stage:
                arms.setdefault(point.arm, []).append(point)
        return dict(sorted(arms.items(), key=lambda each: each[0] != self.baseline))


def read_sweep(folder: Path) -> SweepOutcomes:
    """Reads a sweep's folder.

    Raises:
      UserError: if it is not one, has no points, or a file of it is damaged or has a wrong value.
    """
    path = folder / "sweep.json"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the --out of a sweep")
    if not path.is_file():
        raise UserError(
            f"{folder} is not the folder of a sweep, because it has no sweep.json: name the --out "
            "of a sweep, or give the folder of several records to --all"
        )
    sweep = read_object(path)
    metric = _get(path, sweep, "metric", str)
    delta, baseline = sweep.get("delta"), sweep.get("baseline")
    if delta is not None and not (_is_number(delta) and delta > 0):
        raise UserError(f"{path}: delta must be null or a number greater than 0, not {delta!r}")
    stages = [str(stage) for stage in _get(path, sweep, "stages", list)]
    points = _read_points(folder, stages)
    arms = list(dict.fromkeys(point.arm for point in points))
    # Arms of a stage that has not begun are not known yet.
    has_begun = {*stages} <= {point.stage for point in points}
    if baseline is not None and baseline not in arms and has_begun:
        hint = did_you_mean(str(baseline), arms) or f"; the arms are {', '.join(arms[:5])}"
        raise UserError(f"{path}: the baseline {short_repr(baseline)} is no arm{hint}")
    known = sorted({name for point in points for name in point.scores})
    if known and metric not in known:
        raise UserError(f"{path}: no point has the metric {metric!r}; they have {', '.join(known)}")
    environment = sweep.get("environment") or {}
    if not isinstance(environment, dict):
        raise UserError(f"{path}: environment must be an object, not {short_repr(environment)}")
    return SweepOutcomes(
        folder=folder,
        sweep_file=str(sweep.get("sweep_file", "")),
        base=str(sweep.get("base", "")),
        metric=metric,
        delta=delta,
        baseline=baseline,
        environment={str(name): str(value) for name, value in environment.items()},
        points=points,
    )


def _read_points(folder: Path, stages: Sequence[Any]) -> list[Outcome]:
    """Returns the points in the order of results.csv, or without it, all that the folder has.

    A point that is not in results.csv was run for an earlier choice of a stage, and is left out.
    """
    table = _read_table(folder / "results.csv")
    paths = sorted(folder.glob("points/*/point.json"))
    points = [_read_point(path.parent, table) for path in paths]
    if table:
        points = [point for point in points if point.name in table]
    if not points:
        raise UserError(f"{folder} has no points yet: run the sweep first")
    order = {name: index for index, name in enumerate(table)}
    place = {stage: index for index, stage in enumerate(stages)}
    points.sort(key=lambda each: (place.get(each.stage, 0), order.get(each.name, 0)))
    return points


def _read_point(folder: Path, table: Mapping[str, Mapping[str, str]]) -> Outcome:
    path, status_path = folder / "point.json", folder / "status.json"
    point = read_object(path)
    # A point without a status was never started.
    status = read_object(status_path) if status_path.exists() else {"state": WAITING}
    name, state = _get(path, point, "name", str), status.get("state")
    if state not in STATES:
        raise UserError(
            f"{status_path}: state must be one of {', '.join(STATES)}, not {short_repr(state)}"
        )
    lines = read_lines(folder / "run" / "metrics.jsonl")
    scores, last_validation = last_scores(reversed(lines))
    config_path = folder / "run" / "config.json"
    seconds = status.get("seconds", 0.0)
    return Outcome(
        name=name,
        stage=_get(path, point, "stage", str),
        arm=_get(path, point, "arm", str),
        seed=_get(path, point, "seed", int),
        overrides=_get(path, point, "overrides", dict),
        command=_get(path, point, "command", str),
        state=state,
        message=str(status.get("message") or ""),
        seconds=float(seconds) if _is_number(seconds) else 0.0,
        lines=lines,
        scores=scores or _scores_of_table(table.get(name, {})),
        config=read_object(config_path) if config_path.exists() else {},
        last_validation=last_validation,
        loss_by_position=read_losses(folder / "run", last_validation),
    )


def _scores_of_table(row: Mapping[str, str]) -> dict[str, float]:
    """Returns the metrics of a point in results.csv, for records that keep no metrics.jsonl."""
    return {name: float(text) for name, text in row.items() if name.startswith("eval/") and text}


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """Returns {name of a point: its row of results.csv}, which is empty if there is no file."""
    if not path.exists():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        for row in rows:
            _scores_of_table(row)
        return {row["name"]: row for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}): run the sweep again to write it") from error


def read_lines(path: Path) -> list[Line]:
    """Returns the lines of metrics.jsonl that are objects with a step.

    A run that is still going may be writing the last line.

    Raises:
      UserError: if another line is damaged.
    """
    if not path.exists():
        return []
    lines = []
    try:
        content = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    for number, text in enumerate(content, 1):
        try:
            line = json.loads(text)
        except NOT_JSON as error:
            if number == len(content):
                break
            raise UserError(
                f"{path}, line {number} is damaged ({error}): restore it, or remove the line"
            ) from error
        if isinstance(line, dict) and _is_number(line.get("step")):
            lines.append(line)
    return lines


def _get(path: Path, values: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = values.get(key)
    if type(value) is not kind:
        names = {str: "a text", int: "an integer", dict: "an object", list: "a list"}
        raise UserError(f"{path}: {key} must be {names[kind]}, not {short_repr(value)}")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
