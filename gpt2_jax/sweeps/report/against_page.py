"""A run beside a reference as one HTML page."""

from __future__ import annotations

from html import escape

import numpy as np

from gpt2_jax.sweeps.report import html_parts, words
from gpt2_jax.sweeps.report.against import METRIC, Standing, table_rows
from gpt2_jax.sweeps.report.curves import Band
from gpt2_jax.sweeps.report.references import Reference
from gpt2_jax.sweeps.report.svg import Axes, curves


def against_page(standing: Standing, reference: Reference, run: str) -> str:
    """Returns the page: the verdict, what differs, both curves, the numbers and the sources."""
    heading = f"{run} against {reference.name}"
    body = [f"<h1>{escape(heading)}</h1>"]
    body.append(f"<p><strong>{escape(standing.verdict)}</strong></p>")
    if standing.warnings:
        bullets = html_parts.bullets(standing.warnings)
        body.append(f'<div class="caution"><strong>Caution</strong>{bullets}</div>')
    bands = [
        _band(run, standing.tokens, standing.losses),
        _band(reference.name, reference.tokens, reference.losses),
    ]
    ticks = _ticks(min(band.x[0] for band in bands), max(band.x[-1] for band in bands))
    axes = Axes("tokens", METRIC, words.count_text, log_x=True, x_ticks=ticks)
    body.append(html_parts.legend(enumerate(band.name for band in bands)))
    chart = curves(bands, axes, "against", range(2))
    body.append(html_parts.charts([html_parts.figure(chart, f"{METRIC} by tokens")]))
    columns = ("tokens", "run", reference.name, "difference")
    body.append(html_parts.table(columns, table_rows(standing)))
    body += [f"<h2>About {escape(reference.name)}</h2>", f"<p>{escape(reference.title)}.</p>"]
    if reference.notes:
        body.append(f"<p>{escape(reference.notes)}</p>")
    if reference.sources:
        body.append(html_parts.bullets(reference.sources))
    return html_parts.document(heading, body)


def _band(name: str, x: np.ndarray, y: np.ndarray) -> Band:
    return Band(name, x, y, y, y, 1)


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Returns powers of ten, and their doubles and fivefolds if there are few of them."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1, 2, 5) if len(powers) < 6 else (1,)
    return tuple(factor * 10.0**power for power in powers for factor in factors)
