"""A report as one JSON document, for programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING
from gpt2_jax.sweeps.report.by_position import position_bands
from gpt2_jax.sweeps.report.cautions import cautions
from gpt2_jax.sweeps.report.comparison import Row, Versus, compare_arms
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.statistics.differences import deviation


def as_json(sweep: SweepOutcomes) -> dict[str, Any]:
    """Returns the numbers of the report; those that are unknown are null."""
    return {
        "sweep_file": sweep.sweep_file,
        "base": sweep.base,
        "metric": sweep.metric,
        "higher_is_better": sweep.higher_is_better,
        "delta": sweep.delta,
        "baseline": sweep.baseline,
        "environment": dict(sweep.environment),
        "stages": {stage: _stage(sweep, stage) for stage in sweep.stages},
    }


def _stage(sweep: SweepOutcomes, stage: str) -> dict[str, Any]:
    rows = compare_arms(sweep, stage)
    positions = {band.name: band for band in position_bands(sweep.arms(stage))}
    arms = {}
    for row in rows:
        arms[row.arm] = _arm(row, sweep)
        if (band := positions.get(row.arm)) is not None:
            arms[row.arm]["loss_by_position"] = [
                {"position": _known(x), "mean": _known(y), "interval": _bounds((low, high))}
                for x, y, low, high in zip(band.x, band.center, band.low, band.high, strict=True)
            ]
    return {"arms": arms, "cautions": cautions(sweep, stage, rows)}


def _arm(row: Row, sweep: SweepOutcomes) -> dict[str, Any]:
    reached = row.time_to_loss
    return {
        "points": {state: row.count(state) for state in (DONE, DIVERGED, FAILED, WAITING)},
        "values": {
            str(point.seed): point.scores[sweep.metric]
            for point in row.points
            if point.state == DONE and sweep.metric in point.scores
        },
        "mean": _known(row.center),
        "interval": _bounds(row.interval),
        "deviation": _known(float(deviation(np.array(row.values)))),
        "tokens_to_baseline": None if reached is None else reached[0],
        "baseline_reached": None if reached is None else reached[1],
        "versus_baseline": None if row.versus is None else _versus(row.versus),
    }


def _versus(versus: Versus) -> dict[str, Any]:
    found = versus.found
    return {
        "difference": _known(float(found.test.estimate)),
        "interval": _bounds(versus.interval),
        "bootstrap": None if versus.bootstrap is None else _bounds(versus.bootstrap),
        "paired": found.paired,
        "count": found.count,
        "deviation": _known(found.deviation),
        "correlation": found.correlation,
        "p": float(found.test.p_value()),
        "p_holm": versus.adjusted_p,
        "p_sign_flips": versus.sign_flip_p,
        "verdict": versus.verdict,
        "more_seeds": versus.more_seeds,
        "detectable": _known(versus.detectable),
    }


def _bounds(bounds: tuple[float, float]) -> list[float | None]:
    return [_known(bound) for bound in bounds]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
