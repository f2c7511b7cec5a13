"""Draws what a model expects: the most probable next tokens, and the surprise of each token."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.interpret.figures import style
from gpt2_jax.interpret.figures.picture import Picture, placed_tokens
from gpt2_jax.interpret.figures.selection import Selection
from gpt2_jax.interpret.figures.source import Source

_BARS = 10
_MOST_TOKENS = 40
_CONTEXT = 24  # characters of the text in a title


def next_tokens(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws the probabilities of the ten most probable tokens behind a position."""
    ids, probabilities = top_tokens(source[f"logits/{chosen.position}"], _BARS)
    figure = figure_class(figsize=(style.WIDTH, 0.5 + 0.145 * len(ids)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(ids)), probabilities, color=style.MAIN, height=0.72)
    reach = float(probabilities[0])
    for place, probability in enumerate(probabilities):
        axes.text(
            *(probability + 0.012 * reach, place, probability_text(float(probability))),
            **{"va": "center", "ha": "left", "fontsize": 6},
        )
    placed_tokens(axes.yaxis, [source.labels.label(i, 16) for i in ids], 0.145 * len(ids))
    axes.set(ylim=(len(ids) - 0.5, -0.5), xlim=(0, 1.14 * reach))
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("probability of the next token")
    before = context(source, chosen.position)
    axes.set_title(f"behind {before}", loc="left")
    caption = (
        f"The {len(ids)} most probable tokens behind position {chosen.position} ({before}), at "
        f"temperature 1; all others together have {1 - float(probabilities.sum()):.3f}."
    )
    return Picture("next_tokens", caption, figure)


def top_tokens(logits_V: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
    """Returns the ids of the most probable tokens, best first, and their probabilities."""
    shifted_V = logits_V.astype(np.float64) - float(np.max(logits_V))
    probabilities_V = np.exp(shifted_V) / np.exp(shifted_V).sum()
    ids = np.argsort(-logits_V, kind="stable")[:count]
    return [int(i) for i in ids], probabilities_V[ids]


def probability_text(probability: float) -> str:
    """Returns a probability with three digits behind the point, or two that say something."""
    return f"{probability:.3f}" if probability >= 0.01 else f"{probability:.2g}"


def context(source: Source, position: int) -> str:
    """Returns the end of the text up to a position, as labels."""
    pieces: list[str] = []
    for at in range(position, -1, -1):
        piece = source.labels.pieces(source.tokens[at])
        if len("".join(piece + pieces)) > _CONTEXT:
            return "…" + "".join(pieces or piece[-_CONTEXT:])
        pieces = piece + pieces
    return "".join(pieces)


def surprise(source: Source, chosen: Selection, figure_class: Any) -> Picture:
    """Draws how improbable each token was for the model, beside what it expected."""
    del chosen
    length = len(source)
    said = source.summary["tokens"]
    surprises = np.array([-token["logprob"] for token in said[1:]], float)
    # The distribution over the token at t is the one behind t - 1.
    entropies = np.array([token["entropy"] for token in said[:-1]], float)
    places = np.arange(1, length)
    figure = figure_class(figsize=(style.WIDTH, 1.75), layout="constrained")
    axes = figure.subplots()
    if length <= _MOST_TOKENS:
        axes.bar(places, surprises, color=style.MAIN, width=0.72, label="surprise")
        labels = [source.label(position) for position in range(length)]
        placed_tokens(axes.xaxis, labels, style.WIDTH - 0.35)
        axes.plot(places, entropies, "_", color=style.SECOND, ms=5, mew=1.2, label="entropy")
    else:
        axes.plot(places, surprises, color=style.MAIN, lw=0.6, label="surprise")
        axes.plot(places, entropies, color=style.SECOND, lw=0.6, label="entropy")
        axes.set_xlabel("position")
    axes.set(xlim=(-0.7, length - 0.3), ylabel="nats")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.99), borderpad=0)
    loss = float(surprises.mean()) if length > 1 else float("nan")
    axes.set_title(f"mean {loss:.3f} nats a token", loc="left")
    caption = (
        f"Surprise -log p of each token given those before it, {loss:.4f} nats on average, and the "
        "entropy of the distribution it was drawn from in the model's view: the surprise that "
        "the model expected."
    )
    return Picture("surprise", caption, figure)
