"""Batches in which the documents of a row are told apart, or said to be one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.batch import Batch, BatchSource


class IsolatedDocuments:
    """Adds segments to the batches of another source, in which a given token begins a document."""

    def __init__(self, source: BatchSource, first_token: int) -> None:
        """Takes the source and the id that every document begins with: the end of text."""
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self.weighted = source.weighted
        self.segmented = True
        self._source, self._first_token = source, first_token

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, as NumPy arrays."""
        batch = self._source.rows(step, row_indices)
        segments = np.cumsum(batch.inputs == self._first_token, axis=1, dtype=np.int32)
        return batch._replace(segments=segments)


class OneDocument:
    """Adds segments to the batches of another source, in which each row is one document.

    They then fit a program for batches that have segments.
    """

    def __init__(self, source: BatchSource) -> None:
        """Takes the source."""
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self.weighted = source.weighted
        self.segmented = True
        self._source = source

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, as NumPy arrays."""
        batch = self._source.rows(step, row_indices)
        return batch._replace(segments=np.zeros(batch.inputs.shape, np.int32))
