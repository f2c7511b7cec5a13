"""Draws the attention of one head: the arcs of a query, and the whole pattern."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.interpret.attention import MOST_WHOLE
from gpt2_jax.interpret.figures import style
from gpt2_jax.interpret.figures.picture import Picture, outlined, placed_tokens
from gpt2_jax.interpret.figures.selection import Selection
from gpt2_jax.interpret.figures.source import Source

_MOST_TOKENS = 40
"""How many tokens can be written along a column of a paper."""
_OTHERS = 0.2
"""The least weight of another query that is drawn."""
_NUMBERED = 3
_LEAST_NUMBERED = 0.05
_SIDE = 2.55  # inches, of a pattern


def arcs(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws what one query attends to, as arcs whose width and darkness are the weights."""
    layer, head, query = chosen.layer, chosen.head, chosen.query
    weights_T = source[f"row/{layer}/{head}/{query}"][2]
    shown = _shown(len(source), query)
    place = {position: float(slot) for slot, position in enumerate(shown)}
    figure = figure_class(figsize=(style.WIDTH, 1.95), layout="constrained")
    axes = figure.subplots()
    _other_queries(axes, source, chosen, place)
    strongest = sorted((key for key in place if weights_T[key]), key=lambda key: -weights_T[key])
    for key in reversed(strongest):
        weight = float(weights_T[key])
        _arc(
            axes, place[query], place[key], style.MAIN, 0.3 + 3.7 * weight, max(weight, 0.03) ** 0.7
        )
    _numbers(axes, place[query], {place[key]: float(weights_T[key]) for key in strongest})
    labels = [source.label(position) for position in shown]
    placed_tokens(axes.xaxis, labels, style.WIDTH - 0.1)
    for tick, position in zip(axes.get_xticklabels(), shown, strict=True):
        if position == query:
            tick.set(fontweight="bold", color=style.SECOND)
    span = max(float(len(shown) - 1), 6.0)
    reach = max(abs(place[query] - place[key]) for key in strongest)
    axes.set(xlim=(-0.7, span + 0.7), ylim=(0, _top(0.0, max(reach, 1.0)) + 0.12), yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_title(f"Layer {layer}, head {head}: attention of position {query}", loc="left")
    return Picture("arcs", _arcs_caption(source, chosen, weights_T, shown), figure)


def _shown(length: int, query: int) -> list[int]:
    """Returns the positions that are drawn: all, or the first and those up to the query."""
    if length <= _MOST_TOKENS:
        return list(range(length))
    last = min(length, max(query + 4, _MOST_TOKENS))
    first = last - _MOST_TOKENS
    return [0, *range(first + 1, last)]


def _other_queries(axes: Any, source: Source, chosen: Selection, place: dict[int, float]) -> None:
    if len(source) > MOST_WHOLE:
        return
    pattern_TxT = source[f"pattern/{chosen.layer}/{chosen.head}"]
    for query, key in np.argwhere(pattern_TxT >= _OTHERS).tolist():
        if query != chosen.query and query in place and key in place:
            weight = float(pattern_TxT[query, key])
            _arc(axes, place[query], place[key], style.RULE, 0.2 + 0.6 * weight, 0.8, order=1)


def _top(start: float, end: float) -> float:
    """Returns the height of an arc: the square root of its span, which keeps short ones seen."""
    # Attention of a token on itself is a loop above it.
    return float(np.sqrt(abs(start - end) / (_MOST_TOKENS - 1))) if start != end else 0.12


def _arc(
    axes: Any, start: float, end: float, color: str, width: float, alpha: float, order: int = 2
) -> None:
    angles = np.linspace(0, np.pi, 49)
    half = abs(start - end) / 2 or 0.35
    x = (start + end) / 2 + half * np.cos(angles)
    axes.plot(
        x, _top(start, end) * np.sin(angles), color=color, lw=width, alpha=alpha, zorder=order
    )


def _numbers(axes: Any, start: float, weights: dict[float, float]) -> None:
    """Writes the largest weights on top of their arcs, where there is room."""
    taken: list[tuple[float, float]] = []
    for end, weight in [*weights.items()][:_NUMBERED]:
        x, y = (start + end) / 2, _top(start, end) + 0.015
        near = any(abs(x - other) < 2.5 and abs(y - above) < 0.09 for other, above in taken)
        if weight >= _LEAST_NUMBERED and not near:
            taken.append((x, y))
            style_of = {"ha": "center", "va": "bottom", "fontsize": 6, "color": style.MAIN}
            axes.text(x, y, f"{weight:.2f}", zorder=5, **style_of)


def _arcs_caption(
    source: Source, chosen: Selection, weights_T: np.ndarray, shown: list[int]
) -> str:
    caption = (
        f"Attention of the query at position {chosen.query} ({source.label(chosen.query)}, bold) "
        f"in head {chosen.head} of layer {chosen.layer}, both counted from 0: an arc to each key, "
        "its width and darkness the weight. In gray, weights of other queries of at least "
        f"{_OTHERS}."
    )
    if len(shown) < len(source):
        left_out = 1.0 - float(weights_T[shown].sum())
        caption += (
            f" Shown are the first token and positions {shown[1]} to {shown[-1]}; "
            f"{max(left_out, 0.0):.3f} of the weight is on others."
        )
    if len(source) > MOST_WHOLE:
        caption = caption.replace(f" In gray, weights of other queries of at least {_OTHERS}.", "")
    return caption


def heat_map(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the whole pattern of a head, queries down and keys across."""
    layer, head, length = chosen.layer, chosen.head, len(source)
    pooled = length > MOST_WHOLE
    if pooled:
        weights = source[f"pooled/{layer}/{head}"].astype(np.float32) / 255
    else:
        weights = source[f"pattern/{layer}/{head}"]
    figure = figure_class(figsize=(style.WIDTH, 2.95), layout="constrained")
    axes = figure.subplots()
    shown = weights if layer in source.unmasked else causal(weights)
    image = axes.imshow(
        shown,
        cmap=style.color_map(),
        vmin=0,
        vmax=style.bright(shown),
        extent=(-0.5, length - 0.5, length - 0.5, -0.5),
    )
    if length <= _MOST_TOKENS:
        labels = [source.label(position) for position in range(length)]
        placed_tokens(axes.xaxis, labels, _SIDE)
        placed_tokens(axes.yaxis, labels, _SIDE)
    else:
        axes.set_xlabel("key (position)")
        axes.set_ylabel("query (position)")
    if length <= 2 * _MOST_TOKENS:
        outlined(axes, -0.5, chosen.query - 0.5, chosen.query + 1, 1)
    style.color_bar(figure, image, axes, "attention weight")
    axes.spines[:].set_visible(False)
    axes.set_title(f"Layer {layer}, head {head}: attention pattern", loc="left")
    caption = (
        f"Attention pattern of head {head} of layer {layer}, both counted from 0. Each row is a "
        "query, each column a key"
    )
    caption += "; gray is masked." if layer not in source.unmasked else "; the mask is taken off."
    if length <= 2 * _MOST_TOKENS:
        caption += f" The frame is the query at position {chosen.query}."
    if pooled:
        caption += f" Each cell is the largest weight of a block of {length} / {len(weights)} "
        caption += "positions a side."
    return Picture("attention", caption, figure)


def causal(weights_NxN: np.ndarray) -> np.ndarray:
    """Returns the weights with NaN where a key is behind its query."""
    return np.where(np.tri(len(weights_NxN), dtype=bool), weights_NxN, np.nan)
