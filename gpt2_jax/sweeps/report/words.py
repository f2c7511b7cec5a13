"""How the numbers of a report are written, in Markdown and in HTML alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING
from gpt2_jax.sweeps.report.comparison import Bounds, Row, Versus
from gpt2_jax.sweeps.report.outcomes import Outcome, SweepOutcomes
from gpt2_jax.sweeps.statistics.differences import deviation, deviation_interval
from gpt2_jax.sweeps.statistics.power import MOST_SEEDS
from gpt2_jax.sweeps.statistics.verdict import BETTER, EQUIVALENT, UNDECIDED, WORSE
from gpt2_jax.training.progress import duration

COLUMNS = (
    *("arm", "seeds", "mean [95 %]", "difference [95 %]", "verdict", "p (Holm)", "p (sign flips)"),
    *("detectable", "correlation", "tokens to the baseline's loss", "diverged", "failed"),
)
_SHORT = {
    BETTER: "Better than {baseline}",
    WORSE: "Worse than {baseline}",
    EQUIVALENT: "As good as {baseline} within {delta}",
    UNDECIDED: "Undecided",
}
NONE = "\u2013"
"""An en dash, with which tables mark what is absent."""


def decimals(sweep: SweepOutcomes) -> int:
    """Returns how many decimals the metric and its differences are written with."""
    return 4 if sweep.delta is None else max(4, 1 - math.floor(math.log10(sweep.delta)))


def fixed(value: float, places: int, *, sign: bool = False) -> str:
    """Returns a number with so many decimals, or a dash if it is not a finite number."""
    if not math.isfinite(value):
        return NONE
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    return text.replace("-", "\u2212")  # a minus sign, as wide as a plus sign


def with_bounds(value: float, bounds: Bounds, places: int, *, sign: bool = False) -> str:
    """Returns `value [low, high]`, without the bounds if they are unknown."""
    text = fixed(value, places, sign=sign)
    if not all(map(math.isfinite, bounds)):
        return text
    low, high = (fixed(bound, places, sign=sign) for bound in bounds)
    return f"{text} [{low}, {high}]"


def verdict_text(versus: Versus, delta: float | None) -> str:
    """Returns a verdict in words."""
    if versus.verdict == EQUIVALENT:
        return f"equivalent within {delta:g}"
    if versus.verdict != UNDECIDED:
        return versus.verdict
    if versus.more_seeds is not None:
        plural = "seed" if versus.more_seeds == 1 else "seeds"
        return f"undecided ({versus.more_seeds} more {plural} needed)"
    if math.isnan(versus.found.deviation):
        return "undecided (at least 2 seeds needed)"
    if versus.found.deviation > 0:
        return f"undecided (more than {MOST_SEEDS} seeds needed)"
    return "undecided"


def p_text(p: float | None) -> str:
    """Returns a p value with three decimals."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count_text(count: float) -> str:
    """Returns a number of tokens such as `1.25M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def short_duration(seconds: float) -> str:
    """Returns a time for the axis of a chart, such as `90s` or `2.5h`."""
    if seconds < 600:
        return f"{seconds:.4g}s"
    return f"{seconds / 60:.4g}min" if seconds < 7200 else f"{seconds / 3600:.4g}h"


def cells(row: Row, sweep: SweepOutcomes) -> list[str]:
    """Returns the cells of an arm, in the order of `COLUMNS`."""
    places, total = decimals(sweep), len(row.points)
    waiting = row.count(WAITING)
    seeds = f"{len(row.values)} of {total}" if len(row.values) < total else f"{total}"
    if waiting:
        seeds += f" ({waiting} not finished)"
    reached = NONE
    if row.time_to_loss is not None:
        tokens, seen = row.time_to_loss
        reached = f"{'' if seen else '> '}{count_text(tokens)}"
    compared = [NONE] * 6
    if (versus := row.versus) is not None:
        correlation = versus.found.correlation
        estimate = float(versus.found.test.estimate)
        compared = [
            with_bounds(estimate, versus.interval, places, sign=True),
            verdict_text(versus, sweep.delta),
            p_text(versus.adjusted_p if versus.known else None),
            p_text(versus.sign_flip_p),
            fixed(versus.detectable, places),
            NONE if correlation is None else fixed(correlation, 2),
        ]
        if versus.bootstrap is not None:
            low, high = (fixed(bound, places, sign=True) for bound in versus.bootstrap)
            compared[0] += f"; bootstrap [{low}, {high}]"
    elif row.arm == sweep.baseline:
        compared[1] = "baseline"
    elif sweep.baseline is not None and not row.count(DONE):
        compared[1] = "no results"
    counts = [f"{row.count(state)} of {total}" for state in (DIVERGED, FAILED)]
    mean = with_bounds(row.center, row.interval, places)
    return [row.arm, seeds, mean, *compared, reached, *counts]


def verdict_columns(rows: Sequence[Row], sweep: SweepOutcomes) -> tuple[list[str], list[list[str]]]:
    """Returns the headings and lines of the verdict table, without columns that say nothing.

    These have dashes alone, or count points that diverged or failed where none did.
    """
    lines = [cells(row, sweep) for row in rows]
    none = {NONE, *(f"0 of {len(row.points)}" for row in rows)}
    kept = [at for at in range(len(COLUMNS)) if any(line[at] not in none for line in lines)]
    return [COLUMNS[at] for at in kept], [[line[at] for at in kept] for line in lines]


def in_short(rows: Sequence[Row], sweep: SweepOutcomes) -> list[str]:
    """Returns a sentence for each verdict that some arms have, for a reader in a hurry.

    Without a baseline, there is one on the standard deviation of each arm over its seeds.
    """
    places, found = decimals(sweep), []
    if sweep.baseline is None:
        for row in (row for row in rows if len(row.values) > 1):
            values = np.array(row.values)
            bounds = with_bounds(float(deviation(values)), deviation_interval(values), places)
            start = f"{row.arm}: the standard deviation over {len(values)} seeds is"
            found.append(f"{start} {bounds}, with its 95 % interval if values are normal.")
    for kind, sentence in _SHORT.items():
        arms = []
        for row in rows:
            if row.versus is None or row.versus.verdict != kind:
                continue
            by = fixed(abs(float(row.versus.found.test.estimate)), places)
            known = {
                EQUIVALENT: "",
                UNDECIDED: verdict_text(row.versus, sweep.delta).removeprefix(UNDECIDED),
            }
            arms.append(f"{row.arm}{known.get(kind, f' by {by}')}")
        if arms:
            delta = "" if sweep.delta is None else f"{sweep.delta:g}"
            start = sentence.format(baseline=sweep.baseline, delta=delta)
            found.append(f"{start}: {', '.join(arms)}.")
    if without := [row.arm for row in rows if not row.values and not row.count(WAITING)]:
        found.append(f"No results, because every point diverged or failed: {', '.join(without)}.")
    return found


def notes(sweep: SweepOutcomes) -> list[str]:
    """Returns the sentences that explain the table."""
    better = "Higher" if sweep.higher_is_better else "Lower"
    sentences = [f"{sweep.metric} at the last step of each run. {better} is better."]
    if sweep.baseline is None:
        return sentences
    sentences += [
        "Differences are arm minus baseline, between runs of the same seed where they exist, with "
        "95 % intervals from Student's t distribution.",
        "Better and worse: p below 0.05 after Holm's adjustment for the number of arms.",
        "Detectable: the smallest true difference that so many seeds find 80 % of the time.",
        "Correlation: of the values of two arms over their common seeds; the higher it is, the "
        "more pairs help.",
    ]
    if sweep.delta is not None:
        sentences.insert(
            3,
            f"Equivalent: shown to be within ±{sweep.delta:g}, the difference that was said not to "
            "matter, by two one-sided tests after Holm's adjustment; of a single arm, the 90 % "
            "interval then lies within it.",
        )
    return sentences


def commands(sweep: SweepOutcomes, stage: str) -> Sequence[str]:
    """Returns the command of every point of a stage."""
    return [point.command for point in sweep.points if point.stage == stage]


def total_text(sweep: SweepOutcomes) -> str:
    """Returns how many points there are and what they took."""
    counts = {
        state: sum(point.state == state for point in sweep.points)
        for state in (DONE, DIVERGED, FAILED, WAITING)
    }
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    seconds = sum(point.seconds for point in sweep.points)
    lengths = sorted({tokens_of(point) for point in sweep.points if point.state == DONE} - {0})
    each = f" of {' or '.join(map(count_text, lengths))} tokens" if 0 < len(lengths) < 4 else ""
    return f"{len(sweep.points)} points{each} ({listed}), {duration(seconds)} in all"


def tokens_of(point: Outcome) -> int:
    """Returns the tokens that a point was trained on, 0 if it recorded none."""
    return int(max((line.get("tokens") or 0 for line in point.lines), default=0))
