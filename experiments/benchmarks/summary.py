"""Medians, percentiles, ratios and slopes of what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns a percentile, interpolated between the two values beside it."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summarize(record: dict[str, Any]) -> None:
    """Adds a `summary` to every subject of a record: median, p10, p90 and ratio of each part.

    The ratio is the median of the subject over that of the first, so that above 1 the first is
    faster. It is None if one of the two does not agree with the first or has failed.
    """
    subjects = record["subjects"]
    first = next(iter(subjects))
    passed = record.get("agreement", {}).get("passed")

    def agrees(name: str) -> bool:
        return "failure" not in subjects[name] and (passed is None or passed.get(name, False))

    for name, subject in subjects.items():
        subject["summary"] = {}
        for part, seconds in subject["seconds"].items():
            median = statistics.median(seconds)
            own = subjects[first]["seconds"].get(part)
            comparable = own and agrees(name) and agrees(first)
            subject["summary"][part] = {
                "median": median,
                "p10": percentile(seconds, 10),
                "p90": percentile(seconds, 90),
                "ratio": median / statistics.median(own) if comparable else None,
            }


def ceilings(cases: Mapping[str, Any]) -> dict[str, float]:
    """Returns the best rate of each part of the case `ceilings`: FLOP/s by dtype, and B/s."""
    record = cases.get("ceilings")
    if record is None:
        return {}
    rates: dict[str, float] = {}
    for subject in record["subjects"].values():
        for part, summary in subject["summary"].items():
            work = record["work"][part]
            rate = (work["flops"] or work["bytes"]) / summary["median"]
            rates[part] = max(rate, rates.get(part, 0.0))
    return rates


def nominal_flops(cases: Mapping[str, Any]) -> float | None:
    """Returns the FLOP/s in bfloat16 that the maker of the chip states, or None if unknown."""
    subjects = cases.get("ceilings", {"subjects": {}})["subjects"].values()
    stated = [subject["facts"].get("nominal_bfloat16_flops") for subject in subjects]
    return next(filter(None, stated), None)


def floor_seconds(work: Mapping[str, float], dtype: str, rates: Mapping[str, float]) -> float:
    """Returns the least seconds that a part takes at the ceilings; 0 if these are unknown."""
    compute = work["flops"] / rates[dtype] if dtype in rates else 0.0
    transfers = work["bytes"] / rates["copy"] if "copy" in rates else 0.0
    return max(compute, transfers)


def slope(points: Mapping[str, float]) -> float | None:
    """Returns the exponent e of y ~ x^e, fitted to log y; None for fewer than two points."""
    pairs = [(math.log(float(x)), math.log(y)) for x, y in points.items() if y > 0]
    if len(pairs) < 2:
        return None
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope
