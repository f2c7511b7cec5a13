"""What a step is given (`Batch`), and what makes it (`BatchSource`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Origin = tuple[str, int | list[int] | list[str]]
"""Where a row is from: its folder, and its first token in the train split or, of examples, their
lines; where these are of several files, each with its file."""


class Batch(NamedTuple):
    """Holds B sequences of T tokens, in NumPy arrays on the host or in jax.Arrays on devices.

    What follows from the tokens is computed on the devices, so that a token travels as two bytes.
    """

    tokens: Any
    """uint16 [B, T + 1], the tokens that the model reads, and the target of the last."""
    weights: Any = None
    """float32 [B, T], how much each target counts in the loss; None if each counts 1."""
    segments: Any = None
    """int32 [B, T], the document of each token in its row; None if each row is one document."""

    @property
    def inputs(self) -> Any:
        """Returns int32 [B, T], the tokens that the model reads."""
        return self.tokens[:, :-1].astype(np.int32)

    @property
    def targets(self) -> Any:
        """Returns int32 [B, T], the token to predict at each position."""
        return self.tokens[:, 1:].astype(np.int32)


class BatchSource(Protocol):
    """Makes any rows of any batch, both given by number."""

    batch_size: int
    context_length: int
    weighted: bool
    """Whether its batches have weights."""
    segmented: bool
    """Whether its batches have segments."""

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, as NumPy arrays."""
        ...
