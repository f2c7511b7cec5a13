"""A chart of curves with bands as inline SVG, whose colors are classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from gpt2_jax.sweeps.report.curves import Band
from gpt2_jax.sweeps.statistics.differences import Array

COLORS = 8
"""How many colors the page defines, as classes c0, c1, ...; further curves are dashed."""
# In units of the view box, which is scaled to the width of the page.
_WIDTH, _HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 12, 10, 46
_SHOWN_FROM = 0.3  # the share of the horizontal axis from which on all curves are shown whole


@dataclass(frozen=True)
class Axes:
    """Describes the axes of a chart.

    Attributes:
      x_label: what is along the horizontal axis.
      y_label: what is along the vertical axis.
      x_text: writes a number of the horizontal axis.
      log_x: whether the horizontal axis is logarithmic.
      points: whether every point is marked.
      x_ticks: the numbers along the horizontal axis; by default round ones, or those of the points
        if it is logarithmic.
    """

    x_label: str
    y_label: str
    x_text: Callable[[float], str]
    log_x: bool = False
    points: bool = False
    x_ticks: Sequence[float] = ()


def style_of(index: int) -> str:
    """Returns the classes of the curve at this place."""
    dashed = " dashed" if index // COLORS % 2 else ""
    return f"c{index % COLORS}{dashed}"


def curves(bands: Sequence[Band], axes: Axes, name: str, styles: Sequence[int]) -> str:
    """Returns a chart of curves with their bands.

    Args:
      bands: the curves, not empty.
      axes: of the chart.
      name: of the chart, different for every chart of a page.
      styles: the place of each curve among the colors, so that charts can agree on them.
    """
    if axes.log_x:
        bands = [replace(band, x=np.log10(band.x)) for band in bands]
    x_range = _padded(np.concatenate([band.x for band in bands]), 0.04 if axes.points else 0.0)
    y_range = shown_range(bands, x_range, axes)
    place_x = _place(x_range, _LEFT, _WIDTH - _RIGHT)
    place_y = _place(y_range, _HEIGHT - _BOTTOM, _TOP)
    body = [*_frame(axes, bands, x_range, y_range), f'<g clip-path="url(#{name}-clip)">']
    for style, band in zip(styles, bands, strict=True):
        body.append(_band(band, style, place_x, place_y))
    for style, band in zip(styles, bands, strict=True):
        body.append(_line(band, style, place_x, place_y, axes.points))
    clip = (
        f'<clipPath id="{name}-clip"><rect x="{_LEFT}" y="{_TOP}" '
        f'width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}"/></clipPath>'
    )
    label = escape(f"{axes.y_label} by {axes.x_label}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"<defs>{clip}</defs>{''.join(body)}</g></svg>"
    )


def shown_range(
    bands: Sequence[Band], x_range: tuple[float, float], axes: Axes
) -> tuple[float, float]:
    """Returns the range of the vertical axis: without the steep start, which would flatten all."""
    start = x_range[0] + (0.0 if axes.points else _SHOWN_FROM) * (x_range[1] - x_range[0])
    late = [band.center[band.x >= start] for band in bands]
    values = np.concatenate([values for values in late if len(values)])
    return _padded(values, 0.08)


def _padded(values: Array, share: float) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    if low == high:
        return low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    return low - share * (high - low), high + share * (high - low)


def _place(source: tuple[float, float], first: float, last: float) -> Callable[[float], float]:
    low, high = source
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about `count` round numbers between two others."""
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick_text(value: float, step: float) -> str:
    places = max(0, math.ceil(-math.log10(step) - 1e-9))
    if round(step * 10**places) != step * 10**places and f"{step * 10**places:.6g}"[-1:] == "5":
        places += 1
    return f"{value:.{places}f}"


def _frame(
    axes: Axes,
    bands: Sequence[Band],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> list[str]:
    place_x = _place(x_range, _LEFT, _WIDTH - _RIGHT)
    place_y = _place(y_range, _HEIGHT - _BOTTOM, _TOP)
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    found = []
    y_ticks = _ticks(*y_range, 5)
    step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else 1.0
    for tick in y_ticks:
        y = place_y(tick)
        found.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        text = _tick_text(tick, step)
        found.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    if axes.x_ticks:
        x_ticks = [math.log10(x) if axes.log_x else x for x in axes.x_ticks]
        x_ticks = [x for x in x_ticks if x_range[0] <= x <= x_range[1]]
    elif axes.log_x:  # the rates that were tried
        x_ticks = sorted({round(float(x), 9) for band in bands for x in band.x})
        x_ticks = x_ticks[:: math.ceil(len(x_ticks) / 5)]
    else:
        x_ticks = _ticks(*x_range, 5)
    for tick in x_ticks:
        x = place_x(tick)
        value = 10**tick if axes.log_x else tick
        found.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        anchor = "end" if x > right - 12 else "middle"
        found.append(
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="{anchor}">'
            f"{escape(axes.x_text(value))}</text>"
        )
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    found.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    found.append(
        f'<text class="label" x="{middle_x}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(axes.x_label)}</text>"
    )
    found.append(
        f'<text class="label" transform="translate(15 {middle_y}) rotate(-90)" '
        f'text-anchor="middle">{escape(axes.y_label)}</text>'
    )
    return found


def _band(
    band: Band, index: int, place_x: Callable[[float], float], place_y: Callable[[float], float]
) -> str:
    known = np.isfinite(band.low) & np.isfinite(band.high)
    if band.count < 2 or not np.any(known):
        return ""
    x = band.x[known]
    upper = [_pair(place_x(a), place_y(b)) for a, b in zip(x, band.high[known], strict=True)]
    lower = [_pair(place_x(a), place_y(b)) for a, b in zip(x, band.low[known], strict=True)]
    return f'<path class="band {style_of(index)}" d="M{"L".join([*upper, *lower[::-1]])}Z"/>'


def _line(
    band: Band,
    index: int,
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
    points: bool,
) -> str:
    pairs = [
        (place_x(float(x)), place_y(float(y)))
        for x, y in zip(band.x, band.center, strict=True)
        if np.isfinite(y)
    ]
    path = "L".join(_pair(x, y) for x, y in pairs)
    drawn = [
        f'<path class="line {style_of(index)}" d="M{path}">'
        f"<title>{escape(band.name)}</title></path>"
    ]
    if points or len(pairs) == 1:
        drawn += [
            f'<circle class="dot {style_of(index)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            for x, y in pairs
        ]
    return "".join(drawn)


def _pair(x: float, y: float) -> str:
    clipped = min(max(y, -10.0 * _HEIGHT), 10.0 * _HEIGHT)
    return f"{x:.1f} {clipped:.1f}"
