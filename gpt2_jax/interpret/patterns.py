"""Sums up the attention patterns of a layer, which are too large to keep for a long text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

THUMB = 32
"""Rows and columns of a pattern in the overview of all heads."""


class Overview(NamedTuple):
    """Holds what is kept of a layer's patterns.

    Attributes:
      thumbs: uint8 [H, n, n], n <= 32; see `max_pooled`.
      kinds: float32 [H, 3]; see `kinds`.
      last: float32 [H, T], the weights of the last query.
    """

    thumbs: np.ndarray
    kinds: np.ndarray
    last: np.ndarray


def overview(pattern_HxTxT: np.ndarray, tokens: Sequence[int]) -> Overview:
    """Returns what is kept of the patterns of a layer."""
    thumbs = max_pooled(pattern_HxTxT, THUMB)
    return Overview(thumbs, kinds(pattern_HxTxT, tokens), pattern_HxTxT[:, -1].copy())


def max_pooled(pattern_HxTxT: np.ndarray, most: int) -> np.ndarray:
    """Returns uint8 round(255 p) of the largest weights in at most `most` bins of rows and columns.

    Bin i has the tokens from floor(i T / n) on.
    """
    T = pattern_HxTxT.shape[-1]
    n = min(T, most)
    starts = np.arange(n) * T // n
    largest = np.maximum.reduceat(np.maximum.reduceat(pattern_HxTxT, starts, 1), starts, 2)
    return np.rint(255 * largest).astype(np.uint8)


def kinds(pattern_HxTxT: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Returns how much of three known kinds each head is, float32 [H, 3], from 0 to 1.

    The weight, averaged over queries, on the token before; on the first token; and on the token
    behind an earlier occurrence of the query's token, over queries that have one (Olsson et al.
    2022, "In-context learning and induction heads"). The query itself counts for none of them, also
    where it is behind an equal token. 0 where there is no such query.
    """
    (H, T, _), ids = pattern_HxTxT.shape, np.asarray(tokens)
    found = np.zeros((H, 3), np.float32)
    if T == 1:
        return found
    found[:, 0] = np.diagonal(pattern_HxTxT, -1, axis1=1, axis2=2).mean(-1)
    found[:, 1] = pattern_HxTxT[:, 1:, 0].mean(-1)
    behind_TxT = np.zeros((T, T), bool)
    behind_TxT[:, 1:] = ids[:, None] == ids[None, :-1]
    queries, keys = np.nonzero(behind_TxT & np.tri(T, k=-1, dtype=bool))
    if len(queries):
        found[:, 2] = pattern_HxTxT[:, queries, keys].sum(-1) / len(np.unique(queries))
    return found
