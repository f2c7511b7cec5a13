"""The curves of runs, and their means over the seeds of an arm with pointwise bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report.outcomes import Line, Outcome
from gpt2_jax.sweeps.statistics.differences import Array, mean

_MOST_POINTS = 150  # of a curve: more are not seen, and make the page large


@dataclass(frozen=True)
class Band:
    """Describes the mean of an arm's curves.

    Attributes:
      name: of the arm.
      x: where it is known, increasing.
      center: the mean over the seeds.
      low: the lower bound of the pointwise 95 % interval from the t distribution; equal to `center`
        for one seed.
      high: its upper bound.
      count: how many seeds there are.
    """

    name: str
    x: Array
    center: Array
    low: Array
    high: Array
    count: int


def numbers(point: Outcome, metric: str) -> tuple[Array, Array]:
    """Returns (tokens, values) of the lines of a point that have the metric as a number."""
    return metric_curve(point.lines, metric)


def metric_curve(lines: Sequence[Line], metric: str) -> tuple[Array, Array]:
    """Returns (tokens, values) of the lines that have the metric as a number."""
    found = [
        (tokens, float(line[metric]))
        for line, tokens in zip(lines, _tokens(lines), strict=True)
        if type(line.get(metric)) in (int, float) and np.isfinite(line[metric])
    ]
    pairs = np.array(found, np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _tokens(lines: Sequence[Line]) -> list[float]:
    """Returns the tokens of each line; lines of validations have only a step."""
    per_step = 1.0
    for line in reversed(lines):
        if type(line.get("tokens")) in (int, float) and line["step"] > 0:
            per_step = line["tokens"] / line["step"]
            break
    return [line["step"] * per_step for line in lines]


def seconds_at(point: Outcome, tokens_S: Array) -> Array | None:
    """Returns the seconds of training until these tokens, or None if no speed was recorded.

    They are computed from the recorded speeds, so they leave out validations, saves and the time
    between an interruption and the resumption.
    """
    tokens, speeds = numbers(point, "tokens_per_second")
    useful = speeds > 0
    tokens, speeds = tokens[useful], speeds[useful]
    if not len(tokens):
        return None
    seconds = np.cumsum(np.diff(tokens, prepend=0.0) / speeds)
    # Beyond the last recorded speed it stays the same.
    beyond = np.maximum(tokens_S - tokens[-1], 0.0) / speeds[-1]
    return np.interp(tokens_S, [0.0, *tokens], [0.0, *seconds]) + beyond


def bands(arms: Mapping[str, Sequence[Outcome]], metric: str, *, by_seconds: bool) -> list[Band]:
    """Returns the mean curve of each arm over its points that are done.

    By tokens, the curves are averaged where all of them are known. By seconds, each is interpolated
    to common times up to the end of the shortest. An arm without curves is left out. Of long curves
    every so many points are kept, the last one included.
    """
    found = []
    for arm, points in arms.items():
        curves = [numbers(point, metric) for point in points if point.state == DONE]
        if by_seconds:
            done = [point for point in points if point.state == DONE]
            timed = [
                (seconds_at(point, tokens), values)
                for point, (tokens, values) in zip(done, curves, strict=True)
            ]
            curves = _at_common_times([(x, y) for x, y in timed if x is not None and len(x)])
        else:
            curves = _at_common_tokens([(x, y) for x, y in curves if len(x)])
        if not curves or not len(curves[0][0]):
            continue
        test = mean(np.stack([values for _, values in curves], axis=-1))
        low, high = test.interval() if len(curves) > 1 else (test.estimate, test.estimate)
        step = math.ceil(len(low) / _MOST_POINTS)
        kept = slice((len(low) - 1) % step, None, step)
        x, center = curves[0][0][kept], test.estimate[kept]
        found.append(Band(arm, x, center, low[kept], high[kept], len(curves)))
    return found


def _at_common_tokens(curves: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    if not curves:
        return []
    common = curves[0][0]
    for x, _ in curves[1:]:
        common = np.intersect1d(common, x)
    return [(common, y[np.isin(x, common)]) for x, y in curves]


def _at_common_times(curves: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    if not curves:
        return []
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if last < first:
        return []
    count = min(len(x) for x, _ in curves)
    times = np.linspace(first, last, count) if last > first else np.array([first])
    return [(times, np.interp(times, x, y)) for x, y in curves]
