"""Verdicts: better, worse, equivalent within delta, or undecided and how many seeds are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from gpt2_jax.sweeps.statistics.differences import Array, Difference, TTest
from gpt2_jax.sweeps.statistics.power import MOST_SEEDS, seeds_needed

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
ALPHA = 0.05


def equivalence_p(test: TTest, delta: float) -> Array:
    """Returns the p value of each difference being as large as `delta`, of either sign.

    It is the larger one of two one-sided tests (Schuirmann, 1987), and so below 5 % where the 90 %
    interval lies within +-`delta`; 1 if there are too few values.
    """
    freedom, error = test.freedom, test.error
    with np.errstate(divide="ignore", invalid="ignore"):
        below = special.stdtr(freedom, (test.estimate - delta) / error)
        above = special.stdtr(freedom, -(test.estimate + delta) / error)
    p = np.maximum(below, above)
    # Values that are all equal leave no doubt.
    p = np.where(error == 0, np.where(np.abs(test.estimate) < delta, 0.0, 1.0), p)
    return np.where(np.isnan(p), 1.0, p)


def decide(
    test: TTest,
    adjusted_p: Array,
    adjusted_equivalence_p: Array | None = None,
    *,
    higher_is_better: bool,
) -> np.ndarray[Any, np.dtype[np.str_]]:
    """Returns the verdict of each difference.

    Equivalent: the adjusted p value of `equivalence_p` is below 5 %. A difference that is both
    equivalent and not 0 is equivalent: `delta` was chosen as what does not matter. Better and
    worse: the adjusted p value of the difference being 0 is below 5 %.

    Args:
      test: the differences, arm minus baseline.
      adjusted_p: their p values, adjusted for the number of arms.
      adjusted_equivalence_p: those of `equivalence_p`, adjusted likewise; None if no difference
        was chosen that does not matter.
      higher_is_better: whether the metric is like an accuracy, instead of a loss.
    """
    found = np.asarray(adjusted_p) < ALPHA
    is_better = (test.estimate > 0) == higher_is_better
    verdicts = np.where(found, np.where(is_better, BETTER, WORSE), UNDECIDED)
    if adjusted_equivalence_p is not None:
        verdicts = np.where(np.asarray(adjusted_equivalence_p) < ALPHA, EQUIVALENT, verdicts)
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
    needed = seeds_needed(
        found.deviation,
        effect,
        arms=arms,
        equivalence=delta is not None,
        freedom_per_seed=float(found.test.freedom) / (found.count - 1),
    )
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
