"""The charts of a report as PNG images, drawn with matplotlib (extra `plots`)."""

from __future__ import annotations

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.extras import import_extra
from gpt2_jax.sweeps.report.charts import Chart, sections
from gpt2_jax.sweeps.report.comparison import Row, compare_arms
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.report.page_style import LIGHT
from gpt2_jax.sweeps.report.svg import shown_range
from gpt2_jax.sweeps.statistics.verdict import BETTER, EQUIVALENT, WORSE

_DPI = 160
_LABEL_WIDTH = 70  # characters that fit below a chart
_VERDICT_COLORS = {BETTER: "#0a7a4b", WORSE: "#b3261e", EQUIVALENT: "#0b5cad"}
_UNDECIDED_COLOR = "#59636e"


def require_matplotlib() -> Any:
    """Returns the module `matplotlib.figure`.

    Raises:
      UserError: if matplotlib is not installed, naming the extra.
    """
    return import_extra("matplotlib.figure", extra="plots", needed_by="--png")


def write_pngs(sweep: SweepOutcomes, out: Path) -> list[Path]:
    """Writes an image of every chart into a folder, and returns the files.

    They are called report_CHART.png, or report_STAGE_CHART.png if there are several stages.

    Raises:
      UserError: if matplotlib is not installed.
      OSError: if a file cannot be written.
    """
    module = require_matplotlib()
    written = []
    for stage in sweep.stages:
        images = {}
        rows = [row for row in compare_arms(sweep, stage) if row.versus and row.versus.known]
        if rows:
            images["differences"] = _differences(module, rows, sweep)
        for section in sections(sweep, stage):
            images |= {chart.name: _chart(module, chart) for chart in section.charts}
        part = f"_{re.sub(r'[^A-Za-z0-9.-]+', '-', stage)}" if len(sweep.stages) > 1 else ""
        for name, content in images.items():
            written.append(out / f"report{part}_{name}.png")
            write_file(written[-1], content)
    return written


def _chart(module: Any, chart: Chart) -> bytes:
    figure = module.Figure(figsize=(6.4, 4.4), layout="constrained")
    plot = figure.subplots()
    for style, band in zip(chart.styles, chart.bands, strict=True):
        color, line = LIGHT[style % len(LIGHT)], "--" if style // len(LIGHT) % 2 else "-"
        marker = "o" if chart.axes.points or len(band.x) == 1 else None
        plot.plot(band.x, band.center, line, color=color, marker=marker, ms=4, label=band.name)
        if band.count > 1:
            plot.fill_between(band.x, band.low, band.high, color=color, alpha=0.16, linewidth=0)
    if chart.axes.log_x:
        plot.set_xscale("log")
        ticks = chart.axes.x_ticks or sorted({float(x) for band in chart.bands for x in band.x})
        plot.set_xticks(ticks[:: -(-len(ticks) // 8)], minor=False)
        plot.set_xticks([], minor=True)
    every = np.concatenate([band.x for band in chart.bands])
    scale = np.log10(every) if chart.axes.log_x else every
    bands = [_rescaled(band, chart.axes.log_x) for band in chart.bands]
    plot.set_ylim(*shown_range(bands, (float(scale.min()), float(scale.max())), chart.axes))
    plot.xaxis.set_major_formatter(lambda value, _: chart.axes.x_text(value) if value else "0")
    plot.set_xlabel(chart.axes.x_label)
    plot.set_ylabel(chart.axes.y_label)
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small", frameon=False)
    return _png(figure)


def _rescaled(band: Any, log_x: bool) -> Any:
    return type(band)(**{**vars(band), "x": np.log10(band.x)}) if log_x else band


def _differences(module: Any, rows: list[Row], sweep: SweepOutcomes) -> bytes:
    figure = module.Figure(figsize=(6.4, 1.1 + 0.5 * len(rows)), layout="constrained")
    plot = figure.subplots()
    if sweep.delta is not None:
        plot.axvspan(-sweep.delta, sweep.delta, color=_VERDICT_COLORS[EQUIVALENT], alpha=0.15)
    plot.axvline(0, color=_UNDECIDED_COLOR, linewidth=1)
    for place, row in enumerate(rows):
        assert row.versus is not None  # as the caller has seen
        color = _VERDICT_COLORS.get(row.versus.verdict, _UNDECIDED_COLOR)
        plot.plot(row.versus.interval, [place, place], "|-", color=color, ms=10)
        plot.plot(float(row.versus.found.test.estimate), place, "o", color=color)
    plot.set_yticks(range(len(rows)), [row.arm for row in rows])
    plot.set_ylim(len(rows) - 0.5, -0.5)
    better = "higher" if sweep.higher_is_better else "lower"
    label = f"difference of {sweep.metric} from {sweep.baseline}"
    label = "\n".join(textwrap.wrap(label, _LABEL_WIDTH))
    plot.set_xlabel(f"{label}\n95 % interval; {better} is better", fontsize="small")
    plot.grid(axis="x", alpha=0.3)
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib, so that equal charts are equal files.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
