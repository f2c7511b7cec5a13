"""What a number of seeds can show: the smallest detectable effect, and how many seeds are needed.

Effects are in units of the standard deviation of the differences between runs of the same seed.
Their tests have noncentral t distributions, which matters with few seeds: with three, the effect of
the textbook's formula, (t.975 + t.8) / sqrt(n), is found 76.6 % of the time instead of 80 %.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

POWER = 0.8
MOST_SEEDS = 1000
"""The most seeds that are ever asked for; beyond, another experiment is needed."""


def _quadrature(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nodes and weights of Gauss and Legendre between 0 and 1."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return (nodes + 1) / 2, weights / 2


_QUADRATURE = _quadrature(200)


def exceeds(critical: float, freedom: float, shift: float) -> float:
    """Returns how often a noncentral t with these degrees of freedom exceeds a bound.

    It is integrated from its definition, a normal number with mean `shift` over the root of an
    independent chi-squared number by its degrees of freedom, because `scipy.stats.nct` returns no
    number in the far tails.
    """
    nodes, weights = _QUADRATURE
    chi_squared = 2 * special.gammaincinv(freedom / 2, nodes)
    bounds = critical * np.sqrt(chi_squared / freedom)
    return float(weights @ special.ndtr(shift - bounds))


def power(effect: float, count: int, alpha: float = 0.05, freedom: float | None = None) -> float:
    """Returns how often the two-sided t test of `count` differences finds an effect.

    Args:
      effect: the true difference.
      count: how many differences there are.
      alpha: the level of the test.
      freedom: the degrees of freedom of the error, `count` - 1 by default.
    """
    freedom = count - 1 if freedom is None else freedom
    critical = float(special.stdtrit(freedom, 1 - alpha / 2))
    shift = effect * math.sqrt(count)
    return exceeds(critical, freedom, shift) + exceeds(critical, freedom, -shift)


def smallest_detectable_effect(
    count: int, *, arms: int = 1, alpha: float = 0.05, freedom: float | None = None
) -> float:
    """Returns the effect that the two-sided t test of `count` differences finds 80 % of the time.

    Args:
      count: how many differences there are; infinity is returned for fewer than 2.
      arms: how many arms are compared with the baseline; the first step of Holm's method divides
        `alpha` by it, so that this is what is found whatever the other arms do.
      alpha: the level of the test.
      freedom: the degrees of freedom of the error, `count` - 1 by default.
    """
    if count < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(high, count, alpha / arms, freedom) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        enough = power(middle, count, alpha / arms, freedom) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def equivalence_power(
    delta: float, count: int, alpha: float = 0.05, freedom: float | None = None
) -> float:
    """Returns about how often an effect of 0 is shown to lie within +-`delta`.

    Both one-sided tests at `alpha` must reject, which is the same as that the interval of level
    1 - 2 alpha lies within (Schuirmann, 1987). That the tests are dependent is neglected.
    """
    freedom = count - 1 if freedom is None else freedom
    critical = float(special.stdtrit(freedom, 1 - alpha))
    one_side = exceeds(critical, freedom, delta * math.sqrt(count))
    return max(0.0, 2 * one_side - 1)


def seeds_needed(
    deviation: float,
    effect: float,
    *,
    arms: int = 1,
    equivalence: bool,
    freedom_per_seed: float = 1.0,
) -> int:
    """Returns how many seeds each arm needs for a verdict 80 % of the time.

    Args:
      deviation: the standard deviation of the differences, as far as known; greater than 0.
      effect: the size of a difference that shall be found; greater than 0.
      arms: how many arms are compared with the baseline.
      equivalence: whether a difference of 0 shall also be shown to be smaller than `effect`.
      freedom_per_seed: the degrees of freedom that each seed after the first adds; 1 for pairs, and
        up to 2 without.

    Returns:
      The number, at least 2; `MOST_SEEDS` + 1 if more than `MOST_SEEDS` are needed.
    """
    relative = effect / deviation

    def is_enough(count: int) -> bool:
        test = (relative, count, 0.05 / arms, freedom_per_seed * (count - 1))
        enough = power(*test) >= POWER
        return enough and (not equivalence or equivalence_power(*test) >= POWER)

    low, high = 1, 2  # `low` is not enough
    while high <= MOST_SEEDS and not is_enough(high):
        low, high = high, 2 * high
    high = min(high, MOST_SEEDS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
