"""Compares the arms of a stage with the baseline: the numbers of the verdict table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report.curves import numbers
from gpt2_jax.sweeps.report.outcomes import Outcome, SweepOutcomes
from gpt2_jax.sweeps.statistics.differences import (
    BOOTSTRAP_FROM,
    Array,
    Difference,
    bca_interval,
    difference,
    holm,
    mean,
    sign_flip_p,
)
from gpt2_jax.sweeps.statistics.power import smallest_detectable_effect
from gpt2_jax.sweeps.statistics.verdict import (
    UNDECIDED,
    decide,
    equivalence_p,
    more_seeds,
    time_to_loss,
)

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Versus:
    """Describes an arm in comparison with the baseline.

    Attributes:
      found: the difference, arm minus baseline.
      interval: its 95 % interval from the t distribution.
      bootstrap: its 95 % bootstrap interval; None with fewer than 8 pairs.
      sign_flip_p: the p value of the sign flips; None without pairs.
      adjusted_p: the p value of the t test after Holm's adjustment for all arms of the stage.
      verdict: `better`, `worse`, `equivalent` or `undecided`.
      more_seeds: how many more seeds an undecided verdict lacks, or None if that is unknown.
      detectable: the smallest effect that so many seeds detect 80 % of the time.
    """

    found: Difference
    interval: Bounds
    bootstrap: Bounds | None
    sign_flip_p: float | None
    adjusted_p: float
    verdict: str
    more_seeds: int | None
    detectable: float

    @property
    def known(self) -> bool:
        """Returns whether there are enough values for an interval."""
        return math.isfinite(self.interval[0])


@dataclass(frozen=True)
class Row:
    """Describes an arm in the verdict table.

    Attributes:
      arm: its name.
      points: all of its points.
      values: the metric of the points that are done and have it.
      center: their mean, not a number if there are none.
      interval: of the mean, 95 %, from the t distribution; not numbers with fewer than 2 values.
      versus: the comparison with the baseline; None for the baseline, or if an arm has no values.
      time_to_loss: tokens until the baseline's mean final loss, and whether that was reached; the
        mean over the points. None for a metric that is no loss, or without validations.
    """

    arm: str
    points: Sequence[Outcome]
    values: Sequence[float]
    center: float
    interval: Bounds
    versus: Versus | None
    time_to_loss: tuple[float, bool] | None

    def count(self, state: str) -> int:
        """Returns how many points are in a state."""
        return sum(point.state == state for point in self.points)


def compare_arms(sweep: SweepOutcomes, stage: str) -> list[Row]:
    """Returns the row of each arm of a stage, the baseline first.

    The metric is that of the last step. Points that diverged have none, and are left out of the
    means: the count of them says so.
    """
    arms = sweep.arms(stage)
    values = {arm: _values(points, sweep.metric) for arm, points in arms.items()}
    versus = _compare_all(sweep, values)
    baseline = values.get(sweep.baseline or "", {})
    target = float(np.mean([*baseline.values()])) if baseline else None
    rows = []
    for arm, points in arms.items():
        own = [*values[arm].values()]
        center, interval = float("nan"), (float("nan"), float("nan"))
        if own:
            test = mean(np.array(own))
            low, high = test.interval()
            center, interval = float(test.estimate), (float(low), float(high))
        reached = None if target is None else _time_to(target, points, sweep)
        rows.append(Row(arm, points, own, center, interval, versus.get(arm), reached))
    return rows


def _values(points: Sequence[Outcome], metric: str) -> dict[int, float]:
    """Returns {seed: metric} of the points that are done and have it."""
    done = [point for point in points if point.state == DONE and metric in point.scores]
    return {point.seed: point.scores[metric] for point in done}


def _compare_all(sweep: SweepOutcomes, values: dict[str, dict[int, float]]) -> dict[str, Versus]:
    """Returns {arm: its comparison with the baseline}."""
    baseline = values.get(sweep.baseline or "", {})
    found = {
        arm: difference(own, baseline)
        for arm, own in values.items()
        if own and baseline and arm != sweep.baseline
    }
    # Arms that show nothing count too: they were compared.
    tests = [each.test for each in found.values()]
    adjusted = holm(np.array([float(test.p_value()) for test in tests]))
    equivalence: Sequence[Array | None] = [None] * len(tests)
    if (delta := sweep.delta) is not None:
        equivalence = [*holm(np.array([float(equivalence_p(test, delta)) for test in tests]))]
    return {
        arm: _versus(sweep, each, float(p), alike, len(found))
        for (arm, each), p, alike in zip(found.items(), adjusted, equivalence, strict=True)
    }


def _versus(
    sweep: SweepOutcomes,
    found: Difference,
    adjusted_p: float,
    adjusted_equivalence_p: Array | None,
    arms: int,
) -> Versus:
    verdict = str(
        decide(
            found.test,
            np.asarray(adjusted_p),
            adjusted_equivalence_p,
            higher_is_better=sweep.higher_is_better,
        )
    )
    low, high = found.test.interval()
    is_many = found.paired and found.count >= BOOTSTRAP_FROM
    return Versus(
        found=found,
        interval=(float(low), float(high)),
        bootstrap=bca_interval(found.values_N) if is_many else None,
        sign_flip_p=sign_flip_p(found.values_N) if found.paired else None,
        adjusted_p=adjusted_p,
        verdict=verdict,
        more_seeds=more_seeds(found, sweep.delta, arms) if verdict == UNDECIDED else None,
        detectable=found.deviation
        * smallest_detectable_effect(found.count, arms=arms, freedom=float(found.test.freedom)),
    )


def _time_to(
    target: float, points: Sequence[Outcome], sweep: SweepOutcomes
) -> tuple[float, bool] | None:
    if sweep.higher_is_better:
        return None
    curves = [numbers(point, sweep.metric) for point in points if point.state == DONE]
    times = [time_to_loss(tokens, losses, target) for tokens, losses in curves if len(tokens)]
    if not times:
        return None
    # A point that never gets there has only a bound, and so has their mean.
    return float(np.mean([time for time, _ in times])), all(seen for _, seen in times)
