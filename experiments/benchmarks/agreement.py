"""Whether subjects computed the same, without which their times must not be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.case import Gate


def flatten(values: Any) -> list[float]:
    """Returns the numbers of nested lists in order."""
    if isinstance(values, Sequence):
        return [number for value in values for number in flatten(value)]
    return [values]


def compare(gate: Gate, evidence: Mapping[str, Any], at_least: int) -> dict[str, Any]:
    """Compares everybody's evidence with that of the first.

    Args:
      gate: how close it must be.
      evidence: subject -> numbers, in nested lists.
      at_least: how many numbers there must be.

    Returns:
      {"evidence", "count", "tolerance", "differences": {subject: the largest difference relative to
      the first subject's number, or the fraction of numbers that differ if none may; None if the
      counts differ or a number is NaN}, "passed": {subject: whether it
      agrees}}.
    """
    numbers = {name: flatten(values)[: gate.at_most] for name, values in evidence.items()}
    first = next(iter(numbers.values()), [])
    differences = {
        name: _difference(first, values, exact=gate.tolerance == 0)
        for name, values in numbers.items()
    }
    enough = len(first) >= at_least
    return {
        "evidence": gate.evidence,
        "count": len(first),
        "tolerance": gate.tolerance,
        "differences": differences,
        "passed": {
            name: enough and difference is not None and difference <= gate.tolerance
            for name, difference in differences.items()
        },
    }


def _difference(first: list[float], other: list[float], exact: bool) -> float | None:
    if len(first) != len(other):
        return None
    pairs = [*zip(first, other, strict=True)]
    if exact:
        return sum(a != b for a, b in pairs) / max(len(pairs), 1)
    differences = [abs(a - b) / max(abs(a), 1e-9) for a, b in pairs]
    # NaN compares as false with everything, and must not pass.
    if any(difference != difference for difference in differences):
        return None
    return max(differences, default=None)
