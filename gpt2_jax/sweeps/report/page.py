"""A report as one HTML page that needs nothing else: no script, no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gpt2_jax.sweeps.report import html_parts, words
from gpt2_jax.sweeps.report.cautions import cautions
from gpt2_jax.sweeps.report.charts import Section, sections
from gpt2_jax.sweeps.report.comparison import Row, compare_arms
from gpt2_jax.sweeps.report.config_differences import arm_differences
from gpt2_jax.sweeps.report.forest import differences
from gpt2_jax.sweeps.report.markdown import ended_early, facts, summary, title
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.report.svg import curves


def page(sweep: SweepOutcomes) -> str:
    """Returns the page."""
    body = [f"<h1>{escape(title(sweep))}</h1>", f"<p>{escape(summary(sweep))}</p>"]
    for number, stage in enumerate(sweep.stages):
        body.append(f"<h2>{escape(_heading(sweep, stage))}</h2>")
        body += _stage(sweep, stage, f"s{number}")
    body += ["<h2>How to read this</h2>", html_parts.bullets(words.notes(sweep))]
    body += ["<h2>Setting</h2>", html_parts.table(("what", "value"), facts(sweep))]
    return html_parts.document(title(sweep), body)


def _heading(sweep: SweepOutcomes, stage: str) -> str:
    return "Verdicts" if len(sweep.stages) == 1 else f"Stage {stage}"


def _stage(sweep: SweepOutcomes, stage: str, name: str) -> list[str]:
    rows = compare_arms(sweep, stage)
    found = [html_parts.bullets(short)] if (short := words.in_short(rows, sweep)) else []
    found.append(_verdicts(sweep, rows))
    places, higher = words.decimals(sweep), sweep.higher_is_better
    if forest := differences(rows, sweep.delta, places, higher_is_better=higher):
        caption = "Difference from the baseline with its 95 % interval"
        if sweep.delta is not None:
            caption += "; the strip is the difference that was said not to matter"
        found.append(html_parts.charts([html_parts.figure(forest, caption)]))
    if sentences := cautions(sweep, stage, rows):
        bullets = html_parts.bullets(sentences)
        found.append(f'<div class="caution"><strong>Caution</strong>{bullets}</div>')
    for section in sections(sweep, stage):
        found += section_parts(section, name)
    if ended := ended_early(sweep, stage):
        found += ["<h3>Points that diverged or failed</h3>"]
        found.append(html_parts.table(("point", "state", "why"), ended))
    if knobs := arm_differences(sweep, stage):
        lines = [[arm, *(values[arm] for values in knobs.values())] for arm in sweep.arms(stage)]
        found += ["<h3>What differs between the arms</h3>"]
        found.append(html_parts.table(("arm", *knobs), lines))
    listed = escape("\n".join(words.commands(sweep, stage)))
    found.append(f"<details><summary>Commands of the points</summary><pre>{listed}</pre></details>")
    return found


def section_parts(section: Section, name: str) -> list[str]:
    """Returns a heading, an explanation, a legend and charts.

    Args:
      section: what to show.
      name: different for every stage of a page.
    """
    figures = [
        html_parts.figure(
            curves(chart.bands, chart.axes, f"{name}-{chart.name}", chart.styles), chart.caption
        )
        for chart in section.charts
    ]
    parts = [f"<h3>{escape(section.heading)}</h3>", f"<p>{escape(section.text)}</p>"]
    return [*parts, html_parts.legend(section.legend), html_parts.charts(figures)]


def _verdicts(sweep: SweepOutcomes, rows: Sequence[Row]) -> str:
    columns, lines = words.verdict_columns(rows, sweep)
    kinds = [row.versus.verdict if row.versus else "" for row in rows]
    return html_parts.table(columns, lines, kinds)
