"""Chooses the head, the query and the prediction that figures show, by a rule that is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.attention import MOST_WHOLE
from gpt2_jax.interpret.figures.source import Source

_PREVIOUS, _INDUCTION = 0, 2  # columns of `head_scores`
_LEAST = 0.1
RULE = (
    f"the head with the highest induction score if that is at least {_LEAST}, else the one with "
    "the highest previous-token score; its query with the most such attention"
)
"""How a head and a query are chosen that nobody has named."""


@dataclass(frozen=True)
class Selection:
    """Says what is shown.

    Attributes:
      layer, head: whose attention is shown, from 0.
      query: position whose attention is shown.
      position: whose prediction of the next token is shown.
      rule: how the head and the query were chosen, in words.
    """

    layer: int
    head: int
    query: int
    position: int
    rule: str


def select(
    source: Source,
    layer: int | None = None,
    head: int | None = None,
    query: int | None = None,
    position: int | None = None,
) -> Selection:
    """Returns what to show; what is None is chosen by `RULE`, and the position is the last.

    Negative positions count from the end of the text.

    Raises:
      UserError: for what the model or the text has not.
    """
    _check("layer", layer, source.num_layers)
    _check("head", head, source.num_heads)
    length = len(source)
    at = _position("position", -1 if position is None else position, length)
    scores_LxHx3 = source["head_scores"]
    layers = [layer] if layer is not None else range(source.num_layers)
    heads = [head] if head is not None else range(source.num_heads)
    kind = _INDUCTION
    best, (chosen_layer, chosen_head) = _best(scores_LxHx3, layers, heads, kind)
    if best < _LEAST:
        kind = _PREVIOUS
        best, (chosen_layer, chosen_head) = _best(scores_LxHx3, layers, heads, kind)
    name = "induction" if kind == _INDUCTION else "previous-token"
    among = "" if layer is None and head is None else " of those asked for"
    rule = f"has the highest {name} score{among}, {best:.2f}"
    if layer is not None and head is not None:
        rule = "was asked for"
    if query is not None:
        found, how = _position("query", query, length), "was asked for"
    else:
        found, how = _query(source, chosen_layer, chosen_head, kind)
    return Selection(chosen_layer, chosen_head, found, at, f"the head {rule}; the query {how}")


def followers(tokens: Sequence[int], query: int) -> list[int]:
    """Returns the positions up to the query behind an earlier occurrence of its token."""
    return [at + 1 for at in range(query) if tokens[at] == tokens[query]]


def _best(
    scores_LxHx3: np.ndarray, layers: Sequence[int], heads: Sequence[int], kind: int
) -> tuple[float, tuple[int, int]]:
    found = [(float(scores_LxHx3[at, of, kind]), (at, of)) for at in layers for of in heads]
    return max(found, key=lambda each: each[0])


def _query(source: Source, layer: int, head: int, kind: int) -> tuple[int, str]:
    """Returns the query whose attention shows most of a kind, and how it was chosen."""
    tokens, length = source.tokens, len(source)
    if kind == _INDUCTION:
        wanted = {at: keys for at in range(length) if (keys := followers(tokens, at))}
        what = "behind an earlier occurrence of its token"
    else:
        # With few tokens to choose from, attention on the previous one says little.
        wanted = {at: [at - 1] for at in range(max(1, length // 2), length)}
        what = "on the previous token among those of the second half of the text"
    if not wanted or (kind == _PREVIOUS and length > MOST_WHOLE):
        return length - 1, "is the last"
    if length > MOST_WHOLE:
        return max(wanted), f"is the last with a key {what}"
    pattern_TxT = source[f"pattern/{layer}/{head}"]
    most = max(wanted, key=lambda at: (float(pattern_TxT[at, wanted[at]].sum()), at))
    return most, f"has the most attention {what}"


def _check(name: str, value: int | None, limit: int) -> None:
    if value is not None and not 0 <= value < limit:
        raise UserError(f"--{name} must be between 0 and {limit - 1}, not {value}")


def _position(name: str, value: int, length: int) -> int:
    if not -length <= value < length:
        raise UserError(
            f"--{name} must be a position of the text, from {-length} to {length - 1}, not {value}"
        )
    return value % length
