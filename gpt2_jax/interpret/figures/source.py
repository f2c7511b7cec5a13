"""Reads what the figures of one text are drawn from: its arrays, of which those used are noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from gpt2_jax.interpret.figures.labels import Labels


class Inspected(Protocol):
    """Describes what is drawn: `interpret.inspection.Inspection`."""

    @property
    def tokens(self) -> Any:
        """Returns the ids of the text, T of them."""
        ...

    def __getitem__(self, address: str) -> np.ndarray:
        """Returns the array at an address of `interpret.views.VIEWS`."""
        ...

    def summary(self) -> dict[str, Any]:
        """Returns what is said of each token, of the next one and of the model."""
        ...


class Source:
    """Reads the arrays of a text, and remembers which.

    Attributes:
      tokens: ids of the text.
      summary: of the text.
      labels: writes tokens.
      unmasked: layers whose queries see the tokens behind them, too.
      used: {address: array} of all that was read.
    """

    def __init__(
        self, inspected: Inspected, labels: Labels, unmasked: frozenset[int] = frozenset()
    ) -> None:
        """Takes what is drawn."""
        self._inspected, self.labels, self.unmasked = inspected, labels, unmasked
        self.tokens = [int(token) for token in inspected.tokens]
        self.summary: Mapping[str, Any] = inspected.summary()
        self.used: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        """Returns T, the number of tokens."""
        return len(self.tokens)

    def __getitem__(self, address: str) -> np.ndarray:
        """Returns an array, which is read once."""
        if address not in self.used:
            self.used[address] = np.asarray(self._inspected[address])
        return self.used[address]

    @property
    def num_layers(self) -> int:
        """Returns L."""
        return int(self.summary["config"]["num_layers"])

    @property
    def num_heads(self) -> int:
        """Returns H."""
        return int(self.summary["config"]["num_heads"])

    def label(self, position: int, most: int = 12) -> str:
        """Returns the label of the token at a position."""
        return self.labels.label(self.tokens[position], most)
