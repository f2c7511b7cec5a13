"""Thins the lines of a run's metrics.jsonl for a record, which keeps what a report reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_jax.sweeps.report.outcomes import Line

VERIFIED_LINES = 10
"""The first lines of the training, kept as they are: `report --verify` compares with them."""
_FIRST = ("step", "tokens", "loss", "grad_norm", "learning_rate", "tokens_per_second")
_LATER = ("step", "tokens", "loss", "tokens_per_second")
_DIGITS = 6  # of the numbers of later lines


def thinned(lines: Sequence[Line], most: int) -> list[dict[str, Any]]:
    """Returns fewer lines, with the numbers of the loss, its validations and the speed.

    The first lines of the training and the last of each kind are kept whole. Later ones are about
    evenly spaced and rounded to six digits. A kept line has the mean speed since the kept line
    before it, so that the time of the run stays what it was.

    Args:
      lines: of metrics.jsonl, in order.
      most: how many lines of the training are kept, and how many of the validations.
    """
    training = [line for line in lines if "loss" in line]
    validations = [line for line in lines if any(name.startswith("eval/") for name in line)]
    first = min(VERIFIED_LINES, most)
    kept = _kept(len(training), most, first)
    speeds = _mean_speeds(training, kept)
    found: list[tuple[float, int, dict[str, Any]]] = []
    for place in kept:
        line = training[place]
        if place < first:
            values = {name: line[name] for name in _FIRST if name in line}
        else:
            values = _rounded({name: line[name] for name in _LATER if name in line})
            values |= _rounded({"tokens_per_second": speeds[place]} if place in speeds else {})
        found.append((line["step"], 0, values))
    for place in _kept(len(validations), most, 1):
        line = validations[place]
        values = {name: line[name] for name in line if name == "step" or name.startswith("eval/")}
        is_last = place == len(validations) - 1
        found.append((line["step"], 1, values if is_last else _rounded(values)))
    found.sort(key=lambda each: each[:2])
    return [values for _, _, values in found]


def _kept(count: int, most: int, first: int) -> list[int]:
    """Returns the places of at most `most` of `count` lines: the first ones, others and the last.

    They depend on the counts alone, so that runs of equal length keep the same steps.
    """
    if count <= most:
        return list(range(count))
    rest = most - first
    others = {first + round((count - 1 - first) * (n + 1) / rest) for n in range(rest)}
    return [*range(first), *sorted(others)]


def _mean_speeds(training: Sequence[Line], kept: Sequence[int]) -> dict[int, float]:
    """Returns {place of a kept line: tokens per second since the kept line before it}.

    Lines without tokens or a speed count as `curves.seconds_at` counts them: with the speed of the
    next line that has one.
    """
    reached: dict[int, tuple[float, float]] = {}
    tokens, seconds = 0.0, 0.0
    for place, line in enumerate(training):
        speed, now = line.get("tokens_per_second"), line.get("tokens")
        if isinstance(speed, (int, float)) and isinstance(now, (int, float)) and speed > 0:
            tokens, seconds = now, seconds + (now - tokens) / speed
            reached[place] = (tokens, seconds)
    found: dict[int, float] = {}
    before = (0.0, 0.0)
    for place in kept:
        if place in reached and reached[place][1] > before[1]:
            found[place] = (reached[place][0] - before[0]) / (reached[place][1] - before[1])
            before = reached[place]
    return found


def rounded(value: float) -> float:
    """Returns a number as records keep it in later lines."""
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: rounded(value) if isinstance(value, float) else value
        for name, value in values.items()
    }
