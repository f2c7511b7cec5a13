"""The learning rates over which each arm of a sweep was tuned, and what was reached at each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.sweeps.axes import SEED
from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report.outcomes import Outcome, SweepOutcomes

_RATE = "schedule.learning_rate"
_SHOWN_ARMS = 3


def groups(sweep: SweepOutcomes) -> dict[str, dict[str, dict[float | None, list[float]]]]:
    """Returns {stage: {arm without its rate: {rate, None if it is unknown: metrics}}}."""
    stages: dict[str, dict[str, dict[float | None, list[float]]]] = {}
    for stage in sweep.stages:
        for label, points in _alike_but_for_the_rate(sweep, stage).items():
            rates = stages.setdefault(stage, {}).setdefault(label, {})
            for point in points:
                values = rates.setdefault(_rate(point), [])
                if point.state == DONE and sweep.metric in point.scores:
                    values.append(point.scores[sweep.metric])
    return stages


def _rate(point: Outcome) -> float | None:
    """Returns the learning rate of a point: its own or that of the base config, if it is known."""
    section, knob = _RATE.split(".")
    rate = point.overrides.get(_RATE, point.config.get(section, {}).get(knob))
    return float(rate) if isinstance(rate, (int, float)) else None


def best_rates(sweep: SweepOutcomes, stage: str) -> dict[str, tuple[str, int]]:
    """Returns {arm: (the arm that is best among those of other rates, how many there are)}."""
    found: dict[str, tuple[str, int]] = {}
    sign = -1 if sweep.higher_is_better else 1
    for points in _alike_but_for_the_rate(sweep, stage).values():
        values: dict[str, list[float]] = {}
        for point in points:
            own = values.setdefault(point.arm, [])
            if point.state == DONE and sweep.metric in point.scores:
                own.append(sign * point.scores[sweep.metric])
        best = min(values, key=lambda arm: float(np.mean(values[arm])) if values[arm] else np.inf)
        found |= {arm: (best, len(values)) for arm in values}
    return found


def _alike_but_for_the_rate(sweep: SweepOutcomes, stage: str) -> dict[str, list[Outcome]]:
    """Returns {what points have in common: those that differ in rate and seed alone}."""
    varied = _varied(sweep, stage) - {_RATE, SEED}
    alike: dict[str, list[Outcome]] = {}
    for point in (point for point in sweep.points if point.stage == stage):
        others = {knob: value for knob, value in point.overrides.items() if knob in varied}
        label = " ".join(f"{knob}={value}" for knob, value in others.items()) or "all points"
        alike.setdefault(label, []).append(point)
    names = {
        label: list(dict.fromkeys(_without_rate(point.arm) for point in points))
        for label, points in alike.items()
    }
    named = {_joined(own) or label: alike[label] for label, own in names.items()}
    return named if len(named) == len(alike) else alike


def _joined(arms: Sequence[str]) -> str:
    """Returns the names of arms that differ in their rate alone, empty if they are many."""
    return ", ".join(filter(None, arms)) if len(arms) <= _SHOWN_ARMS else ""


def _without_rate(arm: str) -> str:
    return " ".join(word for word in arm.split() if not word.startswith(f"{_RATE}="))


def _varied(sweep: SweepOutcomes, stage: str) -> set[str]:
    """Returns the knobs that are not set alike by all points of a stage."""
    all_set = [point.overrides for point in sweep.points if point.stage == stage]
    knobs = {knob for overrides in all_set for knob in overrides}
    return {knob for knob in knobs if len({repr(overrides.get(knob)) for overrides in all_set}) > 1}


def learning_rates(sweep: SweepOutcomes) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Returns {stage: {arm without its rate: {rate: metrics}}}, where there are several rates."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for stage, in_stage in groups(sweep).items():
        for label, rates in in_stage.items():
            known = {rate: values for rate, values in rates.items() if rate is not None}
            if len(known) > 1:
                found.setdefault(stage, {})[label] = dict(sorted(known.items()))
    return found
