"""Batches drawn from several data sets in fixed proportions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.batch import Batch
from gpt2_jax.data.loader import TrainLoader
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError


class MixtureLoader:
    """Draws windows from several loaders, each of which goes through its own shuffled epochs.

    Windows come in rounds. A round has as many windows of each set as the set's weight, spread
    evenly, so that after any number of windows each of n sets is at most n / 2 windows from its
    exact proportion. The set of a window, and its number within the set, follow from the window's
    number alone, so a batch is a pure function of (seed, step) here too.
    """

    weighted = False
    segmented = False

    def __init__(self, loaders: Sequence[TrainLoader], weights: Sequence[int]) -> None:
        """Lays out a round.

        Args:
          loaders: one per set, all with the same batch size and context length.
          weights: windows of each set in a round, at least 1.

        Raises:
          UserError: if the loaders differ in batch size or context length.
        """
        self.batch_size, self.context_length = loaders[0].batch_size, loaders[0].context_length
        if any(
            (each.batch_size, each.context_length) != (self.batch_size, self.context_length)
            for each in loaders
        ):
            raise UserError(
                "all sets of a mixture must have the same batch size and context length"
            )
        self._loaders, self._weights = loaders, weights
        self._sets = _spread(weights)
        is_set = self._sets[:, None] == np.arange(len(weights))
        # The number of each window of the round within its set.
        self._ranks = (np.cumsum(is_set, axis=0) - 1)[np.arange(len(self._sets)), self._sets]

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, as NumPy arrays."""
        first = step * self.batch_size
        drawn = [self.draw(first + row) for row in row_indices]
        windows = np.empty((len(drawn), self.context_length + 1), TOKEN_DTYPE)
        for number, loader in enumerate(self._loaders):
            of_set = [i for i, (which, _) in enumerate(drawn) if which == number]
            windows[of_set] = loader.windows([drawn[i][1] for i in of_set])
        return Batch(windows)

    def origins(self, step: int) -> list[tuple[str, int]]:
        """Returns (folder, first token in its train split) for every row of global batch `step`."""
        first = step * self.batch_size
        drawn = [self.draw(first + row) for row in range(self.batch_size)]
        return [self._loaders[which].origin(position) for which, position in drawn]

    def draw(self, position: int) -> tuple[int, int]:
        """Returns (set, number within it) for the window drawn as number `position`, from 0 on."""
        rounds, index = divmod(position, len(self._sets))
        which = int(self._sets[index])
        return which, rounds * self._weights[which] + int(self._ranks[index])


def _spread(weights: Sequence[int]) -> np.ndarray:
    """Returns the set of each window of a round, [sum(weights)], at even distances for each set."""
    times = [(np.arange(weight) + 0.5) / weight for weight in weights]
    sets = np.repeat(np.arange(len(weights)), weights)
    return sets[np.argsort(np.concatenate(times), kind="stable")]
