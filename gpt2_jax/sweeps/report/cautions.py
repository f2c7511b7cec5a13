"""What a reader must know before believing a verdict: unfair tuning, and missing points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING
from gpt2_jax.sweeps.report.comparison import Row
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.report.rates import groups, learning_rates


def cautions(sweep: SweepOutcomes, stage: str, rows: Sequence[Row]) -> list[str]:
    """Returns sentences on the tuning of all arms, and on the points and tests of a stage."""
    found = [*_unequal_tuning(sweep), *_edges(sweep)]
    for row in rows:
        total = len(row.points)
        if diverged := row.count(DIVERGED):
            left_out = (
                ", and the mean leaves them out; it says how well the arm does when it does not "
                "diverge"
            )
            found.append(
                f"{row.arm}: {diverged} of {total} points diverged{left_out if row.values else ''}."
            )
        for state, text in ((FAILED, "failed"), (WAITING, "are not finished")):
            if count := row.count(state):
                found.append(f"{row.arm}: {count} of {total} points {text}.")
        missing = row.count(DONE) - len(row.values)
        if missing:
            found.append(f"{row.arm}: {missing} of {total} points have no {sweep.metric}.")
    compared = [row.versus.found for row in rows if row.versus]
    unpaired = [
        row.arm for row in rows if row.versus and not row.versus.found.paired and row.versus.known
    ]
    if unpaired:
        found.append(
            f"{', '.join(unpaired)}: the seeds do not form pairs with those of the baseline, so "
            "Welch's test is used, which needs more seeds than pairs do."
        )
    counts = [each.count for each in compared if each.paired]
    if 2 <= min(counts, default=0) < 6:
        least = 2.0 ** (1 - min(counts))
        found.append(
            f"With {min(counts)} seeds the p value of sign flips is at least {least:g}: smaller "
            "ones rest on the assumption that the differences are normal."
        )
    return found


def _edges(sweep: SweepOutcomes) -> list[str]:
    found = []
    for stage, in_stage in learning_rates(sweep).items():
        for label, rates in in_stage.items():
            means = {rate: float(np.mean(values)) for rate, values in rates.items() if values}
            if not means:
                continue
            choose = max if sweep.higher_is_better else min
            best = choose(means, key=lambda rate: means[rate])
            if best in (min(rates), max(rates)):
                end = "smallest" if best == min(rates) else "largest"
                found.append(
                    f"Fairness: in stage {stage}, {label} is best at {best:g}, the {end} of its "
                    "learning rates: a better one may lie beyond."
                )
    return found


def _unequal_tuning(sweep: SweepOutcomes) -> list[str]:
    found = []
    for stage, in_stage in groups(sweep).items():
        counts = {label: len(rates) for label, rates in in_stage.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{label}: {count}" for label, count in counts.items())
            found.append(
                f"Fairness: in stage {stage}, the arms were tuned over different numbers of "
                f"learning rates ({listed})."
            )
    return found
