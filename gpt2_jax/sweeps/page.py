"""A report as one HTML page that needs nothing else: no script, no network, no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from gpt2_jax.sweeps import words
from gpt2_jax.sweeps.cautions import cautions, learning_rates
from gpt2_jax.sweeps.comparison import Row, compare_arms
from gpt2_jax.sweeps.config_differences import arm_differences
from gpt2_jax.sweeps.curves import Band, bands, numbers
from gpt2_jax.sweeps.forest import differences
from gpt2_jax.sweeps.markdown import ended_early, facts, summary, title
from gpt2_jax.sweeps.outcomes import DONE, SweepOutcomes
from gpt2_jax.sweeps.page_style import STYLE
from gpt2_jax.sweeps.statistics import mean
from gpt2_jax.sweeps.svg import Axes, curves, style_of

# The least validations of a run for curves of them; with fewer, the training loss is shown.
_ENOUGH_VALIDATIONS = 3


def page(sweep: SweepOutcomes) -> str:
    """Returns the page."""
    body = [f"<h1>{escape(title(sweep))}</h1>", f"<p>{escape(summary(sweep))}</p>"]
    for number, stage in enumerate(sweep.stages):
        body.append(f"<h2>{escape(_heading(sweep, stage))}</h2>")
        body += _stage(sweep, stage, f"s{number}")
    body += ["<h2>How to read this</h2>", _bullets(words.notes(sweep))]
    body += ["<h2>Setting</h2>", _table(("what", "value"), facts(sweep))]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title(sweep))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _heading(sweep: SweepOutcomes, stage: str) -> str:
    return "Verdicts" if len(sweep.stages) == 1 else f"Stage {stage}"


def _stage(sweep: SweepOutcomes, stage: str, name: str) -> list[str]:
    rows = compare_arms(sweep, stage)
    found = [_verdicts(sweep, rows)]
    places, higher = words.decimals(sweep), sweep.higher_is_better
    if forest := differences(rows, sweep.delta, places, higher_is_better=higher):
        caption = "Difference from the baseline with its 95 % interval"
        if sweep.delta is not None:
            caption += "; the strip is the difference that was said not to matter"
        found.append(f'<div class="charts">{_figure(forest, caption)}</div>')
    if sentences := cautions(sweep, stage, rows):
        found.append(f'<div class="caution"><strong>Caution</strong>{_bullets(sentences)}</div>')
    found += _loss_curves(sweep, stage, name)
    found += _rate_curves(sweep, stage, name)
    if ended := ended_early(sweep, stage):
        found += ["<h3>Points that diverged or failed</h3>"]
        found.append(_table(("point", "state", "why"), ended))
    if knobs := arm_differences(sweep, stage):
        lines = [[arm, *(values[arm] for values in knobs.values())] for arm in sweep.arms(stage)]
        found += ["<h3>What differs between the arms</h3>", _table(("arm", *knobs), lines)]
    listed = escape("\n".join(words.commands(sweep, stage)))
    found.append(f"<details><summary>Commands of the points</summary><pre>{listed}</pre></details>")
    return found


def _verdicts(sweep: SweepOutcomes, rows: Sequence[Row]) -> str:
    lines = [words.cells(row, sweep) for row in rows]
    kinds = [row.versus.verdict if row.versus else "" for row in rows]
    return _table(words.COLUMNS, lines, kinds)


def _loss_curves(sweep: SweepOutcomes, stage: str, name: str) -> list[str]:
    arms = sweep.arms(stage)
    done = [point for points in arms.values() for point in points if point.state == DONE]
    counts = [len(numbers(point, sweep.metric)[0]) for point in done]
    metric = sweep.metric if min(counts, default=0) >= _ENOUGH_VALIDATIONS else "loss"
    order = list(arms)
    charts = []
    for by_seconds in (False, True):
        found = bands(arms, metric, by_seconds=by_seconds)
        if not found:
            continue
        label = "seconds of training" if by_seconds else "tokens"
        text = words.short_duration if by_seconds else words.count_text
        axes = Axes(label, metric, text)
        indices = [order.index(band.name) for band in found]
        chart = curves(found, axes, f"{name}-{'time' if by_seconds else 'tokens'}", indices)
        charts.append(_figure(chart, f"{metric} by {label}"))
    if not charts:
        return []
    what = "training loss" if metric == "loss" else f"{metric} of the validations"
    text = (
        f"Mean {what} over the seeds, with pointwise 95 % bands from Student's t distribution. The "
        "steep start may be cut off. Bands of two arms may overlap although their paired "
        "difference is clear: the table decides. Seconds leave out validations and saves."
    )
    legend = _legend([(order.index(arm), arm) for arm in order])
    return ["<h3>Loss curves</h3>", f"<p>{escape(text)}</p>", legend, _charts(charts)]


def _rate_curves(sweep: SweepOutcomes, stage: str, name: str) -> list[str]:
    groups = learning_rates(sweep).get(stage, {})
    found = []
    for label, rates in groups.items():
        known = {rate: values for rate, values in rates.items() if values and rate > 0}
        if not known:
            continue
        tests = [mean(np.array(values)) for values in known.values()]
        low, high = (np.array(each) for each in zip(*(t.interval() for t in tests), strict=True))
        center = np.array([float(test.estimate) for test in tests])
        count = min(len(values) for values in known.values())
        found.append(Band(label, np.array([*known]), center, low, high, count))
    if not found:
        return []
    axes = Axes("learning rate", sweep.metric, lambda rate: f"{rate:.3g}", True, True)
    chart = curves(found, axes, f"{name}-rate", range(len(found)))
    legend = _legend([(index, band.name) for index, band in enumerate(found)])
    figure = _figure(chart, f"{sweep.metric} at the last step by learning rate")
    return ["<h3>Learning rates</h3>", legend, _charts([figure])]


def _charts(figures: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(figures)}</div>'


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


def _legend(names: Iterable[tuple[int, str]]) -> str:
    items = [
        f'<li><svg class="swatch" viewBox="0 0 24 8"><path class="line {style_of(index)}" '
        f'd="M1 4H23"/></svg>{escape(name)}</li>'
        for index, name in names
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _bullets(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """Returns a table whose rows become blocks of lines where the page is narrow."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td data-label="{escape(column)}"{" class=none" if cell == words.NONE else ""}>'
            f"<span>{escape(_unbroken(cell))}</span></td>"
            for column, cell in zip(columns, row, strict=True)
        )
        kind = f' class="{kinds[index]}"' if index < len(kinds) and kinds[index] else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _unbroken(cell: str) -> str:
    """Returns the text of a cell, of which intervals and bounds are not broken into lines."""
    return re.sub(r"^([<>]) |(?<=\d,) (?=[^\[\]]*\d\])", "\\1\u00a0", cell)
