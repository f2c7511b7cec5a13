"""Finds out which characters can be drawn, and with which fonts."""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

from gpt2_jax.files.extras import import_extra

_FIRST = "DejaVu Sans"  # comes with matplotlib
# For what it lacks, in this order: Chinese, Japanese and Korean, Arabic, Hebrew, Indic, symbols.
_FURTHER = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"),
    *("Arial Unicode MS", "Noto Sans CJK JP", "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew"),
    *("Noto Sans Devanagari", "Noto Sans Symbols", "Noto Sans Symbols 2", "Noto Emoji", "Symbola"),
)
_RIGHT_TO_LEFT = ("R", "AL")
_SHAPES_TEXT = (3, 11)
"""The first version of matplotlib that orders and joins right-to-left letters."""


class Fonts:
    """Says which characters the installed fonts have.

    Attributes:
      families: the fonts to draw with, in matplotlib's form; it grows as characters are asked for.
    """

    def __init__(self) -> None:
        """Looks up the installed fonts.

        Raises:
          UserError: if matplotlib is not installed.
        """
        self._manager = import_extra("matplotlib.font_manager", extra="plots", needed_by="a figure")
        version = import_extra("matplotlib", extra="plots", needed_by="a figure").__version__
        self._shapes = tuple(int(part) for part in version.split(".")[:2]) >= _SHAPES_TEXT
        installed = {entry.name for entry in self._manager.fontManager.ttflist}
        self._further = [name for name in _FURTHER if name in installed]
        self.families = [_FIRST]
        self.drawable = functools.cache(self._drawable)
        self._characters = functools.cache(self._characters_of)

    def _drawable(self, character: str) -> bool:
        """Returns whether a character can be drawn, and notes the font that has it."""
        if unicodedata.bidirectional(character) in _RIGHT_TO_LEFT and not self._shapes:
            return False
        for name in (*self.families, *self._further):
            if ord(character) in self._characters(name):
                if name not in self.families:
                    self.families.append(name)
                return True
        return False

    def _characters_of(self, name: str) -> Any:
        path = self._manager.findfont(name, fallback_to_default=False)
        return self._manager.get_font(path).get_charmap()
