"""Estimates and tests of the differences between arms: t tests, the bootstrap, sign flips, Holm.

Arrays hold one sample along their last axis; other axes are independent samples, so that thousands
of simulated sweeps are computed at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

BOOTSTRAP_FROM = 8
"""The least number of differences of which bootstrap intervals are given.

Three differences have only 10 distinct resamples, and intervals from so few are far too narrow.
"""
_MOST_FLIPPED = 16  # differences whose sign flips are all enumerated
_RANDOM_FLIPS = 100_000

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class TTest:
    """Holds an estimate whose error has Student's t distribution; the fields are arrays or floats.

    Attributes:
      estimate: a mean, or a difference of means.
      error: its standard error; not a number if there are too few values to estimate it.
      freedom: the degrees of freedom of the error.
    """

    estimate: Array
    error: Array
    freedom: Array

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Returns the bounds of the two-sided confidence interval, not a number if unknown."""
        half = special.stdtrit(self.freedom, (1 + level) / 2) * self.error
        return self.estimate - half, self.estimate + half

    def p_value(self) -> Array:
        """Returns the two-sided p value of the estimate being 0; 1 if there are too few values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * special.stdtr(self.freedom, -np.abs(self.estimate / self.error))
        # Values that are all equal have an error of 0: no doubt is left, unless they are 0.
        p = np.where((self.error == 0) & (self.estimate != 0), 0.0, p)
        return np.where(np.isnan(p), 1.0, p)


def mean(values_xN: Array) -> TTest:
    """Returns the mean of N values; with one value, its error is not a number."""
    values = np.asarray(values_xN, dtype=np.float64)
    count = values.shape[-1]
    return TTest(
        np.mean(values, axis=-1),
        deviation(values) / np.sqrt(count),
        np.asarray(float(max(count - 1, 1))),
    )


def deviation(values_xN: Array) -> Array:
    """Returns the standard deviation with N - 1 in its denominator; not a number for one value."""
    if values_xN.shape[-1] < 2:
        return np.full(values_xN.shape[:-1], np.nan)
    return np.std(values_xN, axis=-1, ddof=1)


def deviation_interval(values_N: Array, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval of the standard deviation of normal values, from the chi-squared.

    Not numbers for fewer than 2 values.
    """
    count = len(values_N)
    if count < 2:
        return float("nan"), float("nan")
    tails = np.array([(1 + level) / 2, (1 - level) / 2])
    chi_squared = 2 * special.gammaincinv((count - 1) / 2, tails)
    low, high = deviation(np.asarray(values_N)) * np.sqrt((count - 1) / chi_squared)
    return float(low), float(high)


def welch(arm_xN: Array, baseline_xM: Array) -> TTest:
    """Returns the difference of the means of unpaired values whose variances may differ.

    The degrees of freedom are Welch's and Satterthwaite's (Welch, 1947, "The generalization of
    Student's problem when several different population variances are involved").
    """
    arm, baseline = np.asarray(arm_xN, np.float64), np.asarray(baseline_xM, np.float64)
    n, m = arm.shape[-1], baseline.shape[-1]
    first, second = deviation(arm) ** 2 / n, deviation(baseline) ** 2 / m
    together = first + second
    parts = first**2 / max(n - 1, 1) + second**2 / max(m - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(parts > 0, together**2 / parts, n + m - 2)
    return TTest(np.mean(arm, axis=-1) - np.mean(baseline, axis=-1), np.sqrt(together), freedom)


@dataclass(frozen=True)
class Difference:
    """Describes by how much the mean of an arm exceeds that of the baseline.

    Attributes:
      test: the difference, with its error.
      paired: whether it is the mean of differences between runs of the same seed.
      values_N: those differences, in the order of the seeds; empty if it is not paired.
      deviation: the standard deviation whose division by the root of `count` gives the error: of
        the differences or, if it is not paired, the equivalent one.
      count: how many differences there are or, if it is not paired, runs in the smaller arm.
      correlation: of the values of the same seed; None with fewer than 3 pairs or equal values.
    """

    test: TTest
    paired: bool
    values_N: Array
    deviation: float
    count: int
    correlation: float | None


def difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Returns the difference between two arms, each {seed: value} and not empty.

    Runs of the same seed have the same order of data and the same initial weights, so their values
    are subtracted. The differences are paired if the seeds of one arm are all among those of the
    other and there are at least two; if both arms have seeds that the other lacks, such as after
    points failed, all values are used, without pairs.
    """
    common = sorted({*arm} & {*baseline})
    pairs = np.array([[arm[seed], baseline[seed]] for seed in common], np.float64).reshape(-1, 2)
    differences = pairs[:, 0] - pairs[:, 1]
    related = None
    if len(common) > 2 and np.all(np.ptp(pairs, axis=0) > 0):
        related = float(np.asarray(np.corrcoef(pairs.T))[0, 1])
    smaller = min(len(arm), len(baseline))
    if len(common) == smaller and len(common) > 1:
        test = mean(differences)
        spread = float(deviation(differences))
        return Difference(test, True, differences, spread, len(common), related)
    test = welch(np.array(list(arm.values())), np.array(list(baseline.values())))
    spread = float(test.error) * float(np.sqrt(smaller))
    return Difference(test, False, np.empty(0), spread, smaller, related)


def bca_interval(
    values_N: Array, level: float = 0.95, *, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Returns the bootstrap interval of the mean, bias-corrected and accelerated.

    The formulas are those of Efron and Tibshirani (1993), "An Introduction to the Bootstrap",
    chapter 14.3.

    Args:
      values_N: the values, at least `BOOTSTRAP_FROM` of them to be trusted.
      level: the level of confidence.
      resamples: how many resamples are drawn.
      seed: of the drawing, so that a report is the same each time.
    """
    values = np.asarray(values_N, np.float64)
    count, center = len(values), float(np.mean(values))
    if np.ptp(values) == 0:
        return center, center
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    means = values[drawn].mean(axis=-1)
    # Resamples equal to the estimate count half, as ties are frequent with few values.
    below = (np.mean(means < center) + np.mean(means <= center)) / 2
    bias = special.ndtri(below)
    without = center - (np.sum(values) - values) / (count - 1)
    acceleration = np.sum(without**3) / (6 * np.sum(without**2) ** 1.5)
    z = bias + special.ndtri([(1 - level) / 2, (1 + level) / 2])
    quantiles = special.ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(means, quantiles)
    return float(low), float(high)


def sign_flip_p(values_N: Array) -> float:
    """Returns the two-sided p value of the differences being symmetric about 0.

    It assumes no distribution, and can't be less than 2^(1 - N): three differences never reach
    0.05. Up to 16 differences have all their sign flips counted, more have 100,000 drawn.
    """
    values = np.asarray(values_N, np.float64)
    observed = abs(values.sum())
    if len(values) <= _MOST_FLIPPED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
        extra = 0
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (_RANDOM_FLIPS, len(values)))
        extra = 1
    # Sums that rounding makes unequal are ties.
    extreme = np.abs(signs @ values) >= observed - 1e-12 * np.abs(values).sum()
    return float((extreme.sum() + extra) / (len(signs) + extra))


def holm(p_xA: Array) -> Array:
    """Returns the p values of A comparisons along the last axis, adjusted for their number.

    Holm (1979), "A simple sequentially rejective multiple test procedure": whatever is true, at
    most a share alpha of families gets a false rejection at adjusted p values below alpha.
    """
    p = np.asarray(p_xA, np.float64)
    count = p.shape[-1]
    order = np.argsort(p, axis=-1)
    adjusted = np.take_along_axis(p, order, axis=-1) * (count - np.arange(count))
    adjusted = np.minimum(np.maximum.accumulate(adjusted, axis=-1), 1.0)
    return np.take_along_axis(adjusted, np.argsort(order, axis=-1), axis=-1)
