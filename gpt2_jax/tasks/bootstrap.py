"""Intervals of metrics and of differences of metrics, by resampling examples (Koehn 2004)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2_jax.tasks.base import Metric

RESAMPLES = 1000
_SEED = 0
_TAILS = (2.5, 97.5)


class Interval(NamedTuple):
    """Holds a value, the standard deviation of its resamples, and their central 95 %."""

    value: float
    stderr: float
    low: float
    high: float


class Difference(NamedTuple):
    """Holds how much larger one metric is than another on the same examples.

    Attributes:
      interval: of the difference.
      p: how often the difference of a resample has the other sign or is 0, at least 1 / (resamples
        + 1): the one-sided p-value of the paired bootstrap.
    """

    interval: Interval
    p: float


def interval(metric: Metric, resamples: int = RESAMPLES) -> Interval:
    """Returns the metric with its interval; NaN in place of the interval of a single example."""
    return _interval(metric.value(), _resampled([metric], resamples)[0])


def difference(first: Metric, second: Metric, resamples: int = RESAMPLES) -> Difference:
    """Returns first - second with its interval; both are about the same examples, in one order."""
    if len(first.values) != len(second.values):
        raise ValueError("the metrics are about different examples")
    of_first, of_second = _resampled([first, second], resamples)
    value = first.value() - second.value()
    drawn = of_first - of_second
    opposite = int((drawn <= 0).sum() if value > 0 else (drawn >= 0).sum())
    return Difference(_interval(value, drawn), (opposite + 1) / (resamples + 1))


def _interval(value: float, drawn: np.ndarray) -> Interval:
    if not len(drawn):
        return Interval(value, math.nan, math.nan, math.nan)
    low, high = np.percentile(drawn, _TAILS)
    return Interval(value, float(drawn.std(ddof=1)), float(low), float(high))


def _resampled(metrics: Sequence[Metric], resamples: int) -> list[np.ndarray]:
    """Returns each metric's value of each resample, [resamples]; the same examples for all."""
    count = len(metrics[0].values)
    if count < 2:
        return [np.empty(0) for _ in metrics]
    rng = np.random.default_rng(_SEED)
    values: list[list[float]] = [[] for _ in metrics]
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        for metric, found in zip(metrics, values, strict=True):
            found.append(metric.combine(drawn @ metric.values))
    return [np.array(found) for found in values]
