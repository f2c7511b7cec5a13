"""Draws the residual stream: its norms, and what each row of it would predict (logit lens)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.interpret.figures import style
from gpt2_jax.interpret.figures.picture import Picture, placed_tokens
from gpt2_jax.interpret.figures.predictions import context, probability_text
from gpt2_jax.interpret.figures.selection import Selection
from gpt2_jax.interpret.figures.source import Source

_CANDIDATES = 4
_POSITIONS = 7
_MOST_HEIGHT = 7.5  # inches, of a page
_ROW = 0.16
# Columns of `lens/{t}`: 10 ids, 10 probabilities, and these.
_PROBABILITIES, _DIVERGENCE = 10, 23


def norms(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the length of the residual stream at every position, through the layers."""
    del chosen
    norms_RxT = source["norms"]
    rows = np.arange(len(norms_RxT)) / 2
    figure = figure_class(figsize=(style.WIDTH, 1.95), layout="constrained")
    axes = figure.subplots()
    rest = norms_RxT[:, 1:] if norms_RxT.shape[1] > 1 else norms_RxT
    for position in range(rest.shape[1]):
        alpha = min(0.6, max(0.08, 6 / rest.shape[1]))
        axes.plot(rows, rest[:, position], color=style.DIM, lw=0.4, alpha=alpha)
    axes.plot(rows, np.median(rest, axis=1), color=style.MAIN, lw=1.4, label="median")
    if norms_RxT.shape[1] > 1:
        first = f"first token ({source.label(0)})"
        axes.plot(rows, norms_RxT[:, 0], color=style.SECOND, lw=1.2, ls="--", label=first)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    low, high = float(norms_RxT.min()), float(norms_RxT.max())
    ticks = [m * 10.0**p for p in range(-6, 9) for m in (1, 2, 5)]
    axes.set_yticks([tick for tick in ticks if low / 1.05 <= tick <= high * 1.05])
    L = source.num_layers
    axes.set_xticks(range(0, L + 1, max(1, -(-L // 12))))
    axes.set(xlabel="blocks passed", ylabel="norm of the residual stream", xlim=(0, L))
    axes.grid(axis="y", color=style.RULE, lw=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    caption = (
        f"Norm of the residual stream from the embedding (0) to the end of the last block ({L}), "
        "each half step one sublayer: attention, then MLP. Thin lines are positions; the first "
        "token, which many heads attend to when nothing else fits, is apart. Logarithmic."
    )
    return Picture("norms", caption, figure)


def lens(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the most probable tokens that each block's output would predict at one position."""
    rows_BxC = source[f"lens/{chosen.position}"][::2]
    count = len(rows_BxC)
    ids_BxN = rows_BxC[:, :_CANDIDATES].astype(int)
    shares_BxN = rows_BxC[:, _PROBABILITIES:][:, :_CANDIDATES]
    figure = _table_figure(figure_class, count)
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 1))
    axes.imshow(shares_BxN, cmap=style.color_map(), vmin=0, vmax=1, aspect="auto")
    size = _cell_size(count)
    for row in range(count):
        for rank in range(_CANDIDATES):
            text = source.labels.label(int(ids_BxN[row, rank]), 8)
            _cell(axes, rank, row, text, float(shares_BxN[row, rank]), size)
    _blocks(axes, count)
    axes.set_xticks(range(_CANDIDATES), [f"{rank + 1}." for rank in range(_CANDIDATES)])
    axes.set_title(f"behind {context(source, chosen.position)}", loc="left")
    beside.plot(rows_BxC[:, _DIVERGENCE], range(count), "o-", color=style.MAIN, ms=2, lw=0.8)
    beside.set_xlabel("KL (nats)")
    beside.set_xlim(left=0)
    beside.grid(axis="x", color=style.RULE, lw=0.3)
    beside.spines[["top", "right", "left"]].set_visible(False)
    beside.tick_params(axis="y", length=0)
    last = probability_text(float(shares_BxN[-1, 0]))
    caption = (
        "Logit lens: the residual stream behind each block, read out by the final norm and the "
        f"unembedding at position {chosen.position}. Left, its {_CANDIDATES} most probable tokens; "
        f"color is the probability, {last} for the best of the last row, which is the model's "
        "own. Right, the divergence KL(final || row)."
    )
    return Picture("lens", caption, figure)


def lens_grid(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the best token of each block's output, at some positions up to the chosen one."""
    first = max(0, chosen.position - _POSITIONS + 1)
    positions = list(range(first, chosen.position + 1))
    lenses = [source[f"lens/{position}"][::2] for position in positions]
    count = len(lenses[0])
    shares_BxP = np.stack([each[:, _PROBABILITIES] for each in lenses], axis=1)
    figure = _table_figure(figure_class, count, 0.4)
    axes = figure.subplots()
    image = axes.imshow(shares_BxP, cmap=style.color_map(), vmin=0, vmax=1, aspect="auto")
    size = _cell_size(count)
    room = max(7, 40 // len(positions))
    for column, each in enumerate(lenses):
        for row in range(count):
            text = source.labels.label(int(each[row, 0]), room)
            _cell(axes, column, row, text, float(shares_BxP[row, column]), size)
    _blocks(axes, count)
    inputs = [source.label(position, room) for position in positions]
    axes.set_xticks(range(len(positions)), inputs)
    axes.tick_params(axis="x", length=0, labelsize=6.5)
    axes.set_xlabel("token read")
    above = axes.secondary_xaxis("top")
    following = [
        source.label(position + 1, room) if position + 1 < len(source) else "?"
        for position in positions
    ]
    above.set_xticks(range(len(positions)), following)
    above.tick_params(length=0, labelsize=6.5)
    above.set_xlabel("token that follows")
    above.spines[:].set_visible(False)
    style.color_bar(figure, image, axes, "probability")
    caption = (
        "Logit lens: the most probable next token according to the residual stream behind each "
        f"block, at positions {positions[0]} to {positions[-1]}. Below, the token that is read; "
        "above, the one that follows; color is the probability."
    )
    return Picture("lens_grid", caption, figure)


def _table_figure(figure_class: Any, count: int, more: float = 0.0) -> Any:
    height = min(0.55 + more + _ROW * count, _MOST_HEIGHT)
    return figure_class(figsize=(style.WIDTH, height), layout="constrained")


def _cell_size(count: int) -> float:
    return 6.0 if count <= 40 else 5.0


def _cell(axes: Any, x: int, y: int, text: str, share: float, size: float) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=style.on_color(share))


def _blocks(axes: Any, count: int) -> None:
    labels = ["embedding", *(f"block {block}" for block in range(count - 1))]
    placed_tokens(axes.yaxis, labels, min(_ROW * count, _MOST_HEIGHT - 0.6))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
