"""Draws all figures of one text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpt2_jax.interpret.figures import attention, heads, predictions, stream, style
from gpt2_jax.interpret.figures.fonts import Fonts
from gpt2_jax.interpret.figures.picture import Picture
from gpt2_jax.interpret.figures.selection import Selection
from gpt2_jax.interpret.figures.source import Source

PICTURES: dict[str, Callable[[Source, Selection, Any], Picture]] = {
    "arcs": attention.arcs,
    "attention": attention.heat_map,
    "heads": heads.overview,
    "head_scores": heads.scores,
    "next_tokens": predictions.next_tokens,
    "surprise": predictions.surprise,
    "lens": stream.lens,
    "lens_grid": stream.lens_grid,
    "norms": stream.norms,
}
"""All figures by their names."""
_OF_PAIRS = ("surprise",)  # needs a token with one before it


class Drawn(NamedTuple):
    """Holds a figure's name, what it shows, and {format: content of its file}."""

    name: str
    caption: str
    contents: dict[str, bytes]


def draw(source: Source, chosen: Selection, fonts: Fonts, formats: Sequence[str]) -> list[Drawn]:
    """Returns all figures of a text; one of a single token has no surprises.

    Args:
      source: what is drawn.
      chosen: the head, the query and the position that are shown.
      fonts: those that the labels of `source` were made for.
      formats: of `style.encoded`.

    Raises:
      UserError: if matplotlib is not installed.
    """
    return [
        _drawn(function, source, chosen, fonts, formats)
        for name, function in PICTURES.items()
        if len(source) > 1 or name not in _OF_PAIRS
    ]


def _drawn(
    function: Callable[[Source, Selection, Any], Picture],
    source: Source,
    chosen: Selection,
    fonts: Fonts,
    formats: Sequence[str],
) -> Drawn:
    # A label may ask for a font that the figure was begun without: then it is drawn once more.
    while True:
        families = list(fonts.families)
        with style.styled(families) as figure_class:
            picture = function(source, chosen, figure_class)
            if families == fonts.families:
                contents = style.encoded(picture.figure, formats)
                return Drawn(picture.name, picture.caption, contents)
