"""Chooses the arrays that a one-file lesson holds: what its page shows first, then what is near.

Every address of `interpret.views.VIEWS` belongs to a ring around what the lesson opens with:

    0  arrays of the whole text, and those of the layer, the head and the positions that are shown
    1  other heads of the layer
    2  other layers
    3  other positions, in the layer that is shown
    4  other positions in other layers

The vector of a token is as near as the nearest position that it may follow.
The first ring is always whole. Of the others, the smallest arrays come first, until the lesson is
full. What has no meaning for the text, as the parts of a logit behind a stream of another text, is
in none.
"""

from __future__ import annotations

import base64
import gzip
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.views import View, views_of

_LAYER, _HEAD, _POSITION, _NEURON, _TOKEN = "l", "h", "t", "n", "token"
_MOST_MISSES = 40
"""How many arrays in a row may find no room before the lesson counts as full."""
_RINGS = 5
_NEURONS, _TOKENS = 8, 10
"""How many neurons of a position, and possible next tokens, can be asked about."""
_COLUMNS = frozenset(("k", "d"))
"""The places of columns of weights, which are too many for a file: none is held."""


class Packed(NamedTuple):
    """Holds the arrays of a lesson.

    Attributes:
      arrays: {address: base64 of the gzip of its .npy, or `=` and the address of the same array}.
      left_out: how many arrays found no room, of those that the page may ask for.
    """

    arrays: dict[str, str]
    left_out: int


class Focus(NamedTuple):
    """Says what a lesson opens with.

    Attributes:
      layer, head: that are shown.
      positions: the query, its key and the last token.
    """

    layer: int
    head: int
    positions: frozenset[int]


def packed(inspection: Inspection, focus: Focus, most_bytes: int) -> Packed:
    """Returns the arrays of a lesson, as text of at most `most_bytes` characters or the first ring.

    Args:
      inspection: of the text.
      focus: what the lesson opens with.
      most_bytes: room for what is beyond the first ring.
    """
    arrays: dict[str, str] = {}
    first: dict[str, str] = {}
    room, misses, left_out = most_bytes, 0, 0
    for ring, addresses in enumerate(rings(inspection, focus)):
        for address in addresses:
            if misses >= _MOST_MISSES:
                left_out += 1
                continue
            try:
                text = _packed(inspection[address])
            except UserError:  # it has no meaning there
                continue
            if (same := first.setdefault(text, address)) != address and same in arrays:
                text = f"={same}"
            size = len(text) + len(address)
            if ring and size > room:
                misses, left_out = misses + 1, left_out + 1
                continue
            misses = 0
            arrays[address] = text
            room -= size
    return Packed(arrays, left_out)


def rings(inspection: Inspection, focus: Focus) -> list[list[str]]:
    """Returns the addresses that a page may ask for, by ring and then by size."""
    choices = _Choices(inspection, focus)
    found: list[list[tuple[int, str]]] = [[] for _ in range(_RINGS)]
    for view in views_of(inspection.run.subject.config):
        size = None
        for numbers in choices.of(view):
            address = view.address.format(**numbers)
            if size is None:
                try:
                    size = inspection[address].nbytes  # as all of a view
                except UserError:  # the text is too long for it, or it has no meaning there
                    continue
            found[_ring(numbers, focus)].append((size, address))
    return [[address for _, address in sorted(ring, key=lambda each: each[0])] for ring in found]


def _ring(numbers: Mapping[str, int], focus: Focus) -> int:
    other_layer = numbers.get(_LAYER, focus.layer) != focus.layer
    if numbers.get(_POSITION, min(focus.positions)) not in focus.positions:
        return 4 if other_layer else 3
    if other_layer:
        return 2
    return 1 if numbers.get(_HEAD, focus.head) != focus.head else 0


class _Choices:
    """Lists the numbers that fill the places of an address."""

    def __init__(self, inspection: Inspection, focus: Focus) -> None:
        self._inspection, self._focus = inspection, focus
        summary = inspection.summary()
        config = summary["config"]
        L, H, T = config["num_layers"], config["num_heads"], len(inspection.tokens)
        self._ranges: dict[str, Sequence[int]] = {
            _LAYER: range(L),
            _HEAD: range(H),
            _POSITION: range(T),
            "i": range(2 * L + 1),
            "which": (1, 2),
        }
        self._next = [int(entry[0]) for entry in summary["next"][:_TOKENS]]
        self._top = [[int(entry[0]) for entry in token["top"]] for token in summary["tokens"]]

    def of(self, view: View) -> Iterator[dict[str, int]]:
        """Yields {place: number} for all addresses of a view that may be asked for.

        Beside a token is a position that it may follow, also where the address has no place for it.
        """
        names = list(view.pattern.groupindex)
        if not _COLUMNS.isdisjoint(names):
            return
        if _NEURON in names:
            yield from self._neurons()
        elif _TOKEN in names:
            found: dict[str, dict[str, int]] = {}
            for each in self._tokens():
                found.setdefault(view.address.format(**each), each)
            yield from found.values()
        else:
            for numbers in itertools.product(*(self._ranges[name] for name in names)):
                yield dict(zip(names, numbers, strict=True))

    def _neurons(self) -> Iterator[dict[str, int]]:
        """Yields the strongest neurons at the positions that are shown, of the layer shown."""
        listed_TxNx3 = self._inspection[f"neurons/{self._focus.layer}"]
        at = sorted(self._focus.positions)
        found = listed_TxNx3[at, :_NEURONS, 0].astype(int).reshape(-1)
        for neuron in dict.fromkeys(found.tolist()):
            yield {_LAYER: self._focus.layer, _NEURON: neuron}

    def _tokens(self) -> Iterator[dict[str, int]]:
        """Yields what may follow each position: the best tokens, and the one that does.

        Positions that are shown come first.
        """
        tokens, shown = self._inspection.tokens, self._focus.positions
        for position in sorted(range(len(tokens)), key=lambda t: t not in shown):
            last = position + 1 == len(tokens)
            wanted = self._next if last else [*self._top[position], int(tokens[position + 1])]
            for token in dict.fromkeys(wanted):
                yield {_POSITION: position, _TOKEN: token}


def _packed(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(gzip.compress(buffer.getvalue(), mtime=0)).decode("ascii")


def focus_of(state: Mapping[str, Any], num_tokens: int) -> Focus:
    """Returns what a page in a state shows; a part that is missing is the first or the last."""
    last = num_tokens - 1
    query = min(int(state.get("query") or 0), last)
    key = min(int(state.get("key") or 0), last)
    layer, head = int(state.get("layer") or 0), int(state.get("head") or 0)
    return Focus(layer, head, frozenset((query, key, last)))
