"""Draws all heads of a model at once: their patterns, and three scores of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.interpret.figures import style
from gpt2_jax.interpret.figures.attention import causal
from gpt2_jax.interpret.figures.picture import Picture, outlined
from gpt2_jax.interpret.figures.selection import Selection
from gpt2_jax.interpret.figures.source import Source

_SCORES = ("previous token", "first token", "induction")
_MOST_HEIGHT = 7.5  # inches, of a page


def overview(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the pattern of every head, a row of them for each layer."""
    thumbs = source["thumbs"].astype(np.float32) / 255
    L, H, size, _ = thumbs.shape
    gap = max(1, round(size / 10))
    pitch = size + gap
    canvas = np.full((L * pitch - gap, H * pitch - gap), np.nan, np.float32)
    for layer in range(L):
        for head in range(H):
            thumb = thumbs[layer, head]
            shown = thumb if layer in source.unmasked else causal(thumb)
            canvas[layer * pitch :, head * pitch :][:size, :size] = shown
    height = min(0.45 + (style.WIDTH - 0.75) * L / H, _MOST_HEIGHT) if H > 1 else 0.5 + 0.6 * L
    figure = figure_class(figsize=(style.WIDTH, max(height, 1.2)), layout="constrained")
    axes = figure.subplots()
    colors = style.color_map().with_extremes(bad="white")
    image = axes.imshow(canvas, cmap=colors, vmin=0, vmax=style.bright(canvas))
    outlined(
        axes,
        chosen.head * pitch - 0.5 - gap / 2,
        chosen.layer * pitch - 0.5 - gap / 2,
        pitch,
        pitch,
    )
    every_x, every_y = _every(H), _every(L)
    middle = (size - 1) / 2
    axes.set_xticks([head * pitch + middle for head in range(0, H, every_x)], range(0, H, every_x))
    axes.set_yticks([at * pitch + middle for at in range(0, L, every_y)], range(0, L, every_y))
    axes.tick_params(length=0, pad=3.5)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="head", ylabel="layer")
    style.color_bar(figure, image, axes, "attention weight")
    length = len(source)
    pooled = f", pooled to {size} by {size} cells by the maximum" if length > size else ""
    caption = (
        f"Attention patterns of all {L * H} heads on {length} tokens{pooled}. Queries down, keys "
        f"across. The frame is head {chosen.head} of layer {chosen.layer}."
    )
    return Picture("heads", caption, figure)


def scores(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws three scores of every head: on the previous token, the first one, and induction."""
    scores_LxHx3 = source["head_scores"]
    L, H, _ = scores_LxHx3.shape
    cell = (style.WIDTH - 0.7) / 3 / H
    height = min(max(0.55 + cell * L, 1.1), _MOST_HEIGHT)
    figure = figure_class(figsize=(style.WIDTH, height), layout="constrained")
    all_axes = figure.subplots(1, 3, sharey=True)
    most = style.bright(scores_LxHx3.max(axis=(0, 1)))
    for kind, (axes, name) in enumerate(zip(all_axes, _SCORES, strict=True)):
        image = axes.imshow(
            scores_LxHx3[..., kind], cmap=style.color_map(), vmin=0, vmax=most, aspect="auto"
        )
        outlined(axes, chosen.head - 0.5, chosen.layer - 0.5, 1, 1)
        axes.set_title(name, fontsize=6.5)
        axes.set_xticks(range(0, H, _every(H, 6)))
        axes.set_yticks(range(0, L, _every(L)))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("head")
        axes.tick_params(pad=3.5)
    all_axes[0].set_ylabel("layer")
    style.color_bar(figure, image, all_axes, "mean attention")
    caption = (
        "Mean attention of each head over the queries: on the previous token, on the first token, "
        "and, of queries whose token has occurred before, on the token behind that occurrence "
        f"(induction). The frame is head {chosen.head} of layer {chosen.layer}."
    )
    return Picture("head_scores", caption, figure)


def _every(count: int, most: int = 16) -> int:
    """Returns which share of ticks is labeled: every n-th."""
    return -(-count // most)
