"""What a sweep will cost: its points and tokens, and the time if a speed is known."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from gpt2_jax.sweeps.folder import FINAL, SweepFolder
from gpt2_jax.sweeps.points import Point
from gpt2_jax.sweeps.stages import Stages
from gpt2_jax.training.progress import duration


def estimate(
    stages: Stages,
    folder: SweepFolder | None,
    points: Sequence[Point],
    *,
    workers: int,
    tokens_per_second: float | None = None,
) -> dict[str, Any]:
    """Returns the points, the tokens and, if a speed is known, the seconds of a sweep.

    The speed is that of the points which the folder already has: tokens by the seconds that their
    commands took, with compilation and validation. Of a stage that depends on another, the points
    have the mean tokens of those that it may have.

    Args:
      stages: the checked sweep.
      folder: of the sweep; None if it has none yet.
      points: those that are known so far.
      workers: how many points run at the same time.
      tokens_per_second: the speed of one point, instead of the measured one.
    """
    done: list[Point] = []
    if folder is not None:
        done = [point for point in points if folder.status(point.name).state in FINAL]
    source = "given" if tokens_per_second is not None else None
    if folder is not None and done and tokens_per_second is None:
        speeds = [
            point.tokens / seconds
            for point in done
            if (seconds := folder.status(point.name).seconds) > 0
        ]
        if speeds:
            tokens_per_second = statistics.median(speeds)
            source = f"median of {len(speeds)} points in {folder.path}"
    table = {}
    for name in stages.sweep.stages:
        possible = stages.may_have(name)
        mean = sum(point.tokens for point in possible) / len(possible)
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
        "seconds_left": left / tokens_per_second / workers if tokens_per_second else None,
    }


def as_text(report: dict[str, Any], points: Sequence[Point]) -> str:
    """Returns the points and what `estimate` has returned, for people."""
    width = max((len(point.name) for point in points), default=0)
    lines = [f"{point.name:<{width}}  {point.tokens:>14,} tokens" for point in points]
    for name, stage in report["stages"].items():
        done = f", {stage['points_done']} of them done" if stage["points_done"] else ""
        lines.append(f"stage {name}: {stage['points']} points, {stage['tokens']:,} tokens{done}")
    if len(report["stages"]) > 1:
        lines.append(f"all stages: {report['points']} points, {report['tokens']:,} tokens")
    if report["seconds_left"] is None:
        lines.append(
            "time: unknown until a point of --out has run; or give --tokens_per_second, the speed "
            "of one point"
        )
    else:
        lines.append(
            f"time: about {duration(report['seconds_left'])} for {report['tokens_left']:,} tokens, "
            f"{report['workers']} at a time, at {report['tokens_per_second']:,.0f} tokens/s "
            f"each ({report['speed_is']})"
        )
    return "\n".join(lines)


def as_json(report: dict[str, Any], points: Sequence[Point]) -> str:
    """Returns the points and what `estimate` has returned, as one JSON document."""
    named = [
        {"name": point.name, "stage": point.stage, "arm": point.arm, "seed": point.seed}
        | {"tokens": point.tokens}
        for point in points
    ]
    return json.dumps(report | {"known_points": named})
