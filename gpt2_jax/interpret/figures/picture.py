"""Holds what a figure is: a drawing with a name and a caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpt2_jax.interpret.figures import style

_POINTS = 72  # an inch
_LARGEST = 6.5
_CHARACTER = 0.6  # the width of one, as a share of its height


@dataclass(frozen=True)
class Picture:
    """Holds a drawing.

    Attributes:
      name: of its files, without the ending.
      caption: what it shows, as a paper would say it.
      figure: matplotlib's.
    """

    name: str
    caption: str
    figure: Any


def placed_tokens(axis: Any, labels: list[str], inches: float) -> None:
    """Writes labels at 0, 1, ... along an axis of a plot, turned where they are too wide.

    Args:
      axis: `axes.xaxis` or `axes.yaxis`.
      labels: of the tokens, in order.
      inches: the length of the axis.
    """
    pitch = inches * _POINTS / max(len(labels), 1)
    size = min(_LARGEST, pitch / (1.05 if axis.axis_name == "x" else 1.1))
    axis.set_ticks(range(len(labels)), labels)
    axis.set_tick_params(length=0, labelsize=size)
    widest = max(map(len, labels), default=0) * _CHARACTER * size
    # One that is a little too wide, such as \\n, has the room of its neighbours.
    if axis.axis_name == "x" and widest > 1.3 * pitch:
        axis.set_tick_params(rotation=90)


def outlined(axes: Any, x: float, y: float, width: float, height: float) -> None:
    """Draws a frame in data coordinates, red within white, which is seen on every color."""
    for line, color in ((2.2, "white"), (1.1, style.FRAME)):
        box = {"fill": False, "ec": color, "lw": line, "zorder": 4, "clip_on": False}
        axes.add_patch(type(axes.patch)((x, y), width, height, **box))
