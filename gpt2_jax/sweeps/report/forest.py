"""A chart of the differences of all arms with their intervals, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gpt2_jax.sweeps.report.comparison import Row, Versus
from gpt2_jax.sweeps.report.words import fixed

_WIDTH, _ROW, _TOP, _BOTTOM, _SIDE = 480, 44, 6, 46, 14


def differences(
    rows: Sequence[Row], delta: float | None, places: int, *, higher_is_better: bool
) -> str:
    """Returns a chart of the arms that are compared with a baseline, empty if there is none.

    Args:
      rows: of the verdict table.
      delta: the difference that does not matter, shown as a strip, or None.
      places: how many decimals numbers have.
      higher_is_better: whether the metric is like an accuracy.
    """
    compared = [(row.arm, row.versus) for row in rows if row.versus is not None]
    known = [(arm, versus) for arm, versus in compared if versus.known]
    if not known:
        return ""
    reach = max(abs(bound) for _, versus in known for bound in versus.interval)
    reach = max(reach, (delta or 0.0) * 1.2) * 1.05 or 1.0
    middle = _WIDTH / 2
    scale = (middle - _SIDE) / reach
    bottom = _TOP + _ROW * len(known)
    body = []
    if delta is not None:
        body.append(
            f'<rect class="delta" x="{middle - delta * scale:.1f}" y="{_TOP}" '
            f'width="{2 * delta * scale:.1f}" height="{bottom - _TOP}"/>'
        )
    body.append(f'<path class="axis" d="M{middle} {_TOP}V{bottom}M{_SIDE} {bottom}H{466}"/>')
    for index, (arm, versus) in enumerate(known):
        body.append(_row(arm, versus, _TOP + _ROW * index, middle, scale))
    for value in (-reach / 1.05, 0.0, reach / 1.05):
        anchor = "middle" if value == 0 else ("start" if value < 0 else "end")
        body.append(
            f'<text x="{middle + value * scale:.1f}" y="{bottom + 17}" text-anchor="{anchor}">'
            f"{fixed(value, places, sign=value != 0)}</text>"
        )
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    body.append(f'<text class="label" x="{_SIDE}" y="{bottom + 36}">\u2190 {left}</text>')
    body.append(
        f'<text class="label" x="{_WIDTH - _SIDE}" y="{bottom + 36}" text-anchor="end">'
        f"{right} \u2192</text>"
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + _BOTTOM}" role="img" '
        f'aria-label="differences from the baseline with 95 % intervals">{"".join(body)}</svg>'
    )


def _row(arm: str, versus: Versus, top: float, middle: float, scale: float) -> str:
    low, high = (middle + bound * scale for bound in versus.interval)
    center, y = middle + float(versus.found.test.estimate) * scale, top + 30
    shown = arm if len(arm) <= 60 else f"{arm[:57]}..."
    return (
        f'<text class="arm" x="{_SIDE}" y="{top + 15}">{escape(shown)}</text>'
        f'<path class="interval {versus.verdict}" '
        f'd="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 5}v10M{high:.1f} {y - 5}v10"/>'
        f'<circle class="estimate {versus.verdict}" cx="{center:.1f}" cy="{y}" r="4.5"/>'
    )
