"""What differs between the configs of arms."""

from __future__ import annotations

import json
from typing import Any

from gpt2_jax.sweeps.axes import SEED
from gpt2_jax.sweeps.points import NOT_LEARNED
from gpt2_jax.sweeps.report.outcomes import Outcome, SweepOutcomes
from gpt2_jax.sweeps.report.words import NONE


def arm_differences(sweep: SweepOutcomes, stage: str) -> dict[str, dict[str, str]]:
    """Returns {knob: {arm: its value}} of the knobs that differ between the arms of a stage.

    They are those of the resolved configs or, if an arm has no config.json, of the overrides.
    """
    points = sweep.arms(stage)
    started = {arm: next((p for p in own if p.config), own[0]) for arm, own in points.items()}
    resolved = all(point.config for point in started.values())
    arms = {arm: _knobs(point, resolved) for arm, point in started.items()}
    names = sorted({name for knobs in arms.values() for name in knobs})
    table = {name: {arm: knobs.get(name, NONE) for arm, knobs in arms.items()} for name in names}
    return {name: values for name, values in table.items() if len(set(values.values())) > 1}


def _knobs(point: Outcome, resolved: bool) -> dict[str, str]:
    if not resolved:
        found = dict(point.overrides)
    else:
        found = {
            f"{section}.{name}": value
            for section, values in point.config.items()
            if isinstance(values, dict)
            for name, value in values.items()
        }
    return {
        name: _text(value)
        for name, value in found.items()
        if name != SEED and name.partition(".")[0] not in NOT_LEARNED
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
