"""Verdicts: better, worse, equivalent within delta, or undecided and how many seeds are missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.sweeps.power import MOST_SEEDS, seeds_needed
from gpt2_jax.sweeps.statistics import Array, Difference, TTest

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
ALPHA = 0.05


def decide(
    test: TTest, adjusted_p: Array, delta: float | None, *, higher_is_better: bool
) -> np.ndarray[Any, np.dtype[np.str_]]:
    """Returns the verdict of each difference.

    Equivalent: the 90 % interval lies within +-`delta`, which is the two one-sided tests at 5 %. A
    difference that is both equivalent and not 0 is equivalent: `delta` was chosen as what does not
    matter. Better and worse: the adjusted p value is below 5 %.

    Args:
      test: the differences, arm minus baseline.
      adjusted_p: their p values, adjusted for the number of arms.
      delta: the difference that does not matter, or None if none was chosen.
      higher_is_better: whether the metric is like an accuracy, instead of a loss.
    """
    found = np.asarray(adjusted_p) < ALPHA
    is_better = (test.estimate > 0) == higher_is_better
    verdicts = np.where(found, np.where(is_better, BETTER, WORSE), UNDECIDED)
    if delta is not None:
        low, high = test.interval(1 - 2 * ALPHA)
        verdicts = np.where((low > -delta) & (high < delta), EQUIVALENT, verdicts)
    return verdicts


def more_seeds(found: Difference, delta: float | None, arms: int) -> int | None:
    """Returns how many more seeds an undecided comparison needs, for a verdict 80 % of the time.

    With a `delta`, they suffice to find a difference of `delta` and to show that one of 0 is
    smaller; without, to find a difference as large as the estimate.

    Returns:
      The number, at least 1; None if it is unknown, because the deviation is, or exceeds
      `MOST_SEEDS`.
    """
    effect = abs(float(found.test.estimate)) if delta is None else delta
    if not (found.deviation > 0 and effect > 0):
        return None
    needed = seeds_needed(found.deviation, effect, arms=arms, equivalence=delta is not None)
    return None if needed > MOST_SEEDS else max(1, needed - found.count)


def time_to_loss(tokens_S: Array, losses_S: Array, target: float) -> tuple[float, bool]:
    """Returns when a loss first reaches a target, and whether that was seen.

    Between two validations the loss is taken to fall in a straight line.

    Args:
      tokens_S: the tokens of each validation, increasing and not empty.
      losses_S: the losses there.
      target: the loss to reach.

    Returns:
      (tokens of the first crossing, True) or (tokens of the last validation, False).
    """
    reached = np.flatnonzero(losses_S <= target)
    if not len(reached):
        return float(tokens_S[-1]), False
    at = int(reached[0])
    if at == 0:
        return float(tokens_S[0]), True
    share = (losses_S[at - 1] - target) / (losses_S[at - 1] - losses_S[at])
    return float(tokens_S[at - 1] + share * (tokens_S[at] - tokens_S[at - 1])), True
