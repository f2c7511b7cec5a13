"""The parts of which the HTML pages of reports are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from gpt2_jax.sweeps.report.page_style import STYLE
from gpt2_jax.sweeps.report.svg import style_of
from gpt2_jax.sweeps.report.words import NONE


def document(title: str, body: Iterable[str]) -> str:
    """Returns a whole page that needs nothing else: no script, no network, no other file."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def charts(figures: Sequence[str]) -> str:
    """Returns figures side by side where there is room."""
    return f'<div class="charts">{"".join(figures)}</div>'


def figure(chart: str, caption: str) -> str:
    """Returns a chart with its caption."""
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


def legend(names: Iterable[tuple[int, str]]) -> str:
    """Returns the legend of curves, each given by (its place among the colors, its name)."""
    items = [
        f'<li><svg class="swatch" viewBox="0 0 24 8"><path class="line {style_of(index)}" '
        f'd="M1 4H23"/></svg>{escape(name)}</li>'
        for index, name in names
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def bullets(sentences: Iterable[str]) -> str:
    """Returns a list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """Returns a table whose rows become blocks of lines where the page is narrow."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td data-label="{escape(column)}"{" class=none" if cell == NONE else ""}>'
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
