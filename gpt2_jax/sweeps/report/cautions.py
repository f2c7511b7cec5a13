"""What a reader must know before believing a verdict: unfair tuning, and missing points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.sweeps.axes import SEED
from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING
from gpt2_jax.sweeps.report.comparison import Row
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes

_RATE = "schedule.learning_rate"


def cautions(sweep: SweepOutcomes, stage: str, rows: Sequence[Row]) -> list[str]:
    """Returns sentences on the tuning of all arms, and on the points and tests of a stage."""
    found = [*_unequal_tuning(sweep), *_edges(sweep)]
    for row in rows:
        total = len(row.points)
        if diverged := row.count(DIVERGED):
            found.append(
                f"{row.arm}: {diverged} of {total} points diverged, and the mean leaves them out; "
                "it says how well the arm does when it does not diverge."
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


def _groups(sweep: SweepOutcomes) -> dict[str, dict[str, dict[float | None, list[float]]]]:
    """Returns {stage: {arm without its rate: {rate, None if it sets none: metrics}}}."""
    stages: dict[str, dict[str, dict[float | None, list[float]]]] = {}
    varied = {stage: _varied(sweep, stage) for stage in sweep.stages}
    for point in sweep.points:
        rate = point.overrides.get(_RATE)
        others = {
            knob: value
            for knob, value in point.overrides.items()
            if knob not in (_RATE, SEED) and knob in varied[point.stage]
        }
        label = " ".join(f"{knob}={value}" for knob, value in others.items()) or "all points"
        rates = stages.setdefault(point.stage, {}).setdefault(label, {})
        values = rates.setdefault(float(rate) if isinstance(rate, (int, float)) else None, [])
        if point.state == DONE and sweep.metric in point.scores:
            values.append(point.scores[sweep.metric])
    return stages


def _varied(sweep: SweepOutcomes, stage: str) -> set[str]:
    """Returns the knobs that are not set alike by all points of a stage."""
    all_set = [point.overrides for point in sweep.points if point.stage == stage]
    knobs = {knob for overrides in all_set for knob in overrides}
    return {knob for knob in knobs if len({repr(overrides.get(knob)) for overrides in all_set}) > 1}


def learning_rates(sweep: SweepOutcomes) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Returns {stage: {arm without its rate: {rate: metrics}}}, where there are several rates."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for stage, groups in _groups(sweep).items():
        for label, rates in groups.items():
            known = {rate: values for rate, values in rates.items() if rate is not None}
            if len(known) > 1:
                found.setdefault(stage, {})[label] = dict(sorted(known.items()))
    return found


def _edges(sweep: SweepOutcomes) -> list[str]:
    found = []
    for stage, groups in learning_rates(sweep).items():
        for label, rates in groups.items():
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
    for stage, groups in _groups(sweep).items():
        counts = {label: len(rates) for label, rates in groups.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{label}: {count}" for label, count in counts.items())
            found.append(
                f"Fairness: in stage {stage}, the arms were tuned over different numbers of "
                f"learning rates ({listed})."
            )
    return found
