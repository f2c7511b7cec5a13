"""Batches that tell the documents in a row apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.loader import Batch, BatchSource


class IsolatedDocuments:
    """The batches of another source, with segments: a document begins where its first token is."""

    def __init__(self, source: BatchSource, first_token: int) -> None:
        """Takes the source, and the id that every document begins with: the end of text."""
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self._source, self._first_token = source, first_token

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """The named rows of batch `step`, as NumPy arrays [len(row_indices), T]."""
        batch = self._source.rows(step, row_indices)
        segments = np.cumsum(batch.inputs == self._first_token, axis=1, dtype=np.int32)
        return batch._replace(segments=segments)
