"""What a sweep will cost: its points and tokens, and the time, as measured or as planned."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from gpt2_jax.config import Config
from gpt2_jax.sweeps.folder import DONE, FINAL, SweepFolder
from gpt2_jax.sweeps.points import Point
from gpt2_jax.sweeps.stages import Stages
from gpt2_jax.training.progress import duration


@dataclasses.dataclass(frozen=True)
class Planner:
    """Plans how long runs take; `gpt2_jax.planning` does, which a sweep itself does not import.

    Attributes:
      devices: those of a point, in words.
      seconds: (configs) -> (best case, worst case) of each.
    """

    devices: str
    seconds: Callable[[Sequence[Config]], Sequence[tuple[float, float]]]


def estimate(
    stages: Stages,
    folder: SweepFolder | None,
    points: Sequence[Point],
    *,
    workers: int | None,
    tokens_per_second: float | None = None,
    planner: Planner | None = None,
) -> dict[str, Any]:
    """Returns the points, the tokens and, if a speed or the devices are known, the seconds.

    The speed is that of the points which the folder already has: tokens by the seconds that their
    commands took, with compilation and validation. Of a stage that depends on another, the points
    have the mean tokens of those that it may have.

    Args:
      stages: the checked sweep.
      folder: of the sweep; None if it has none yet.
      points: those that are known so far.
      workers: how many points run at the same time; None if that is not known, so that the seconds
        are those of one at a time.
      tokens_per_second: the speed of one point, instead of the measured one.
      planner: plans the time from the shapes of the points, if their devices are known.
    """
    states: dict[str, str] = {}
    if folder is not None:
        states = {point.name: folder.status(point.name).state for point in points}
    done = [point for point in points if states.get(point.name) in FINAL]
    whole = [point for point in done if states[point.name] == DONE]  # others stopped early
    source = "given" if tokens_per_second is not None else None
    if folder is not None and whole and tokens_per_second is None:
        speeds = [
            point.tokens / seconds
            for point in whole
            if (seconds := folder.status(point.name).seconds) > 0
        ]
        if speeds:
            tokens_per_second = statistics.median(speeds)
            source = f"median of {len(speeds)} points in {folder.path}"
    table, tokens_in_turn = {}, 0.0  # the second of points that one worker trains in turn
    for name in stages.sweep.stages:
        possible = stages.may_have(name)
        mean = sum(point.tokens for point in possible) / len(possible)
        tokens_in_turn += mean * _turns(stages, name, done, workers or 1)
        table[name] = {
            "points": stages.count(name),
            "points_done": sum(point.stage == name for point in done),
            "tokens": round(mean * stages.count(name)),
        }
    total = sum(stage["tokens"] for stage in table.values())
    left = max(total - sum(point.tokens for point in done), 0)
    return {
        "stages": table,
        "points": sum(stage["points"] for stage in table.values()),
        "tokens": total,
        "tokens_left": left,
        "workers": workers,
        "tokens_per_second": tokens_per_second,
        "speed_is": source,
        "seconds_left": tokens_in_turn / tokens_per_second if tokens_per_second else None,
        "planned_for": planner and planner.devices,
        "planned_seconds_left": planner and _planned(planner, stages, done, workers or 1),
    }


def _planned(
    planner: Planner, stages: Stages, done: Sequence[Point], workers: int
) -> tuple[float, float]:
    """Returns the seconds of the points that are not done, (best case, worst case)."""
    total = [0.0, 0.0]
    for name in stages.sweep.stages:
        possible = stages.may_have(name)
        seconds = planner.seconds([point.config for point in possible])
        for case in range(2):
            mean = sum(each[case] for each in seconds) / len(possible)
            total[case] += mean * _turns(stages, name, done, workers)
    return total[0], total[1]


def _turns(stages: Stages, name: str, done: Sequence[Point], workers: int) -> int:
    """Returns how many points of a stage that are left one worker trains, one after the other."""
    left = stages.count(name) - sum(point.stage == name for point in done)
    return math.ceil(max(left, 0) / workers)


def as_text(report: dict[str, Any], points: Sequence[Point]) -> str:
    """Returns the points and what `estimate` has returned, for people."""
    width = max((len(point.name) for point in points), default=0)
    lines = [f"{point.name:<{width}}  {point.tokens:>14,} tokens" for point in points]
    for name, stage in report["stages"].items():
        done = f", {stage['points_done']} of them done" if stage["points_done"] else ""
        lines.append(f"stage {name}: {stage['points']} points, {stage['tokens']:,} tokens{done}")
    if len(report["stages"]) > 1:
        lines.append(f"all stages: {report['points']} points, {report['tokens']:,} tokens")
    return "\n".join([*lines, *_times(report)])


def _times(report: dict[str, Any]) -> list[str]:
    """Returns lines about the time: measured, planned, or why neither is known."""
    left, workers = f"{report['tokens_left']:,} tokens", f"{report['workers'] or 1} at a time"
    lines = []
    if report["seconds_left"] is not None:
        lines.append(
            f"time: about {duration(report['seconds_left'])} for {left}, {workers}, at "
            f"{report['tokens_per_second']:,.0f} tokens/s each ({report['speed_is']})"
        )
    if report["planned_seconds_left"] is not None:
        best, worst = map(duration, report["planned_seconds_left"])
        lines.append(
            f"time as planned: {best} to {worst} for {left}, {workers}, each on "
            f"{report['planned_for']}: from shapes alone, without compilation and validation"
        )
    if lines and report["workers"] is None:
        lines.append(
            "how many points will run at the same time is not known here: the time is that of one "
            "after the other; --workers says how many"
        )
    return lines or [
        "time: unknown until a point of --out has run; or give --tokens_per_second, the speed of "
        "one point, or for GPUs and TPUs --chip, for which it is planned"
    ]


def as_json(report: dict[str, Any], points: Sequence[Point]) -> str:
    """Returns the points and what `estimate` has returned, as one JSON document."""
    named = [
        {"name": point.name, "stage": point.stage, "arm": point.arm, "seed": point.seed}
        | {"tokens": point.tokens}
        for point in points
    ]
    return json.dumps(report | {"known_points": named})
