"""The standard deviation of a paired difference, which says what a number of seeds can show."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import local_path
from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.outcomes import read_sweep

_MOST = 1e12


def deviation_of(named: str, metric: str) -> tuple[float, str]:
    """Returns (the standard deviation of a difference of two runs of one seed, where it is from).

    Args:
      named: the number itself, or the folder of a finished sweep or a record. Of that, the last
        stage gives the deviation: of all differences between its arms and the baseline, pooled or,
        if it compares no arms, the square root of two times that of its runs, which is what
        differences have if runs of one seed have nothing in common, so that it is rather too large.
      metric: the number that is compared.

    Raises:
      UserError: if it is neither, the metric is another one, or there are too few values.
    """
    try:
        number = float(named)
    except ValueError:
        return _of_sweep(local_path(named, "--noise"), metric)
    if not 0 < number <= _MOST:
        raise UserError(f"--noise must be greater than 0 and at most {_MOST:g}, not {named}")
    return number, "as given"


def _of_sweep(folder: Path, metric: str) -> tuple[float, str]:
    sweep = read_sweep(folder)
    if sweep.metric != metric:
        raise UserError(
            f"--noise {folder} has compared {sweep.metric}, and this sweep compares {metric}: name "
            "a sweep of the same metric, or a number"
        )
    rows = compare_arms(sweep, sweep.stages[-1])
    found = [row.versus.found for row in rows if row.versus and row.versus.found.paired]
    pairs = [(each.deviation, each.count) for each in found if math.isfinite(each.deviation)]
    if pairs:
        text = f"of {sum(count for _, count in pairs)} paired differences in {folder}"
        return _checked(_pooled(pairs), folder), text
    runs = [(float(np.std(row.values, ddof=1)), len(row.values)) for row in rows if row.values[1:]]
    if not runs:
        raise UserError(
            f"--noise {folder} has no arm with two values of {metric}: name a sweep with several "
            "seeds, or a number"
        )
    text = f"sqrt(2) times that of {sum(count for _, count in runs)} runs in {folder}"
    return _checked(math.sqrt(2) * _pooled(runs), folder), text


def _pooled(deviations: list[tuple[float, int]]) -> float:
    """Returns the deviation that samples of (deviation, count) have in common."""
    squares = sum((count - 1) * deviation**2 for deviation, count in deviations)
    return math.sqrt(squares / sum(count - 1 for _, count in deviations))


def _checked(deviation: float, folder: Path) -> float:
    if deviation > 0:
        return deviation
    raise UserError(f"--noise {folder}: its runs do not differ at all: name a number")
