"""Bins of positions of the context, which grow with the position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.sweeps.statistics.differences import Array

_PER_DOUBLING = 2  # bins between a position and twice that


def bins(length: int) -> list[tuple[int, int]]:
    """Returns the (first, last) positions of each bin, counted from 1, up to the context length.

    The last positions are the powers of the root of 2, rounded, and the length.
    """
    ends = {round(2 ** (power / _PER_DOUBLING)) for power in range(2 * length.bit_length())}
    lasts = sorted({end for end in ends if end < length} | {length})
    return list(zip([1, *(last + 1 for last in lasts[:-1])], lasts, strict=True))


def binned(losses_T: Sequence[float | None]) -> Array:
    """Returns the mean loss of each bin, not a number for a bin without any."""
    values = np.array([np.nan if loss is None else loss for loss in losses_T], np.float64)
    found = []
    for first, last in bins(len(values)):
        known = values[first - 1 : last][~np.isnan(values[first - 1 : last])]
        found.append(known.mean() if len(known) else np.nan)
    return np.array(found)


def unbinned(means: Sequence[float | None], length: int) -> list[float | None]:
    """Returns a loss for each position, of which `binned` makes these means again.

    Raises:
      ValueError: if a context of this length does not have as many bins.
    """
    pairs = zip(bins(length), means, strict=True)
    return [loss for (first, last), loss in pairs for _ in range(first, last + 1)]
