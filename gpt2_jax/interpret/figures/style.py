"""Gives figures their form: one column of a paper wide, in colors that all can tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpt2_jax.files.extras import import_extra

WIDTH = 3.35
"""Inches, a column of a page with two."""
COLORS = "cividis"
"""Of matrices: dark for low values, bright for high ones; made for color-blind eyes too."""
INK, DIM, RULE, MASKED = "#1b1f24", "#59636e", "#c9d0d7", "#e9ecef"
MAIN, SECOND = "#00204d", "#b5651d"
"""Of lines and bars: the dark end of `COLORS`, and a brown that stays apart in gray."""
FRAME = "#d9480f"
"""Of what is framed in a matrix: a red that `COLORS` has not."""
_DPI = 300
_SETTINGS = {
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.0,
    "ytick.labelsize": 6.0,
    "legend.fontsize": 6.0,
    "axes.linewidth": 0.5,
    "axes.edgecolor": DIM,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
    "axes.titlepad": 4.0,
    # A token such as $x$ is no formula.
    "text.parse_math": False,
    # Letters as outlines, which look the same everywhere; equal figures are equal files.
    "svg.fonttype": "path",
    "svg.hashsalt": "gpt2_jax",
    "pdf.fonttype": 42,
    "image.interpolation": "none",
}


@contextmanager
def styled(families: Sequence[str]) -> Iterator[Any]:
    """Draws in this style while the block runs, and yields matplotlib's class `Figure`.

    Args:
      families: the fonts, of which later ones have what earlier ones lack.

    Raises:
      UserError: if matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", extra="plots", needed_by="a figure")
    module = import_extra("matplotlib.figure", extra="plots", needed_by="a figure")
    with matplotlib.rc_context({**_SETTINGS, "font.family": list(families)}):
        yield module.Figure


def color_map() -> Any:
    """Returns the colors of matrices, in which NaN is the gray of what is masked."""
    matplotlib = import_extra("matplotlib", extra="plots", needed_by="a figure")
    return matplotlib.colormaps[COLORS].with_extremes(bad=MASKED)


def bright(weights: Any) -> float:
    """Returns the weight that gets the brightest color: 1, or less where nearly all are small."""
    seen = weights[np.isfinite(weights)]
    peak = float(np.quantile(seen, 0.995)) if seen.size else 1.0
    return 1.0 if peak > 0.5 else max(0.05, float(np.ceil(peak * 20) / 20))


def color_bar(figure: Any, image: Any, axes: Any, label: str) -> None:
    """Draws the scale of a matrix, with an arrow if some values are above it."""
    above = bool(np.nanmax(image.get_array().filled(np.nan)) > image.get_clim()[1])
    bar = figure.colorbar(
        image, ax=axes, pad=0.02, aspect=28, shrink=0.9, extend="max" if above else "neither"
    )
    bar.set_label(label)
    bar.outline.set_visible(False)


def on_color(value: float) -> str:
    """Returns a color that can be read on a cell whose place among the colors is 0 to 1."""
    return "white" if value < 0.5 else INK


def encoded(figure: Any, formats: Sequence[str]) -> dict[str, bytes]:
    """Returns {format: content of the file}; a format is svg, png or pdf."""
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    contents = {}
    for form in formats:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=_DPI, metadata=dated[form])
        contents[form] = buffer.getvalue()
    return contents
