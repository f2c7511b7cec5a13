"""Batches drawn from several data sets in fixed proportions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.batch import Batch, Origin
from gpt2_jax.data.example_batches import ExampleLoader
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

    def __init__(
        self,
        loaders: Sequence[TrainLoader | ExampleLoader],
        weights: Sequence[int],
        first_token: int | None = None,
    ) -> None:
        """Lays out a round.

        Args:
          loaders: one per set, all with the same batch size and context length.
          weights: windows of each set in a round, at least 1.
          first_token: with which documents begin that are to be isolated; read only if one of the
            sets has examples, because only then are there segments here.

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
        self._loaders, self._weights, self._first_token = loaders, weights, first_token
        # With examples in one set, windows of the others need weights and segments as well.
        self.weighted = self.segmented = any(each.segmented for each in loaders)
        self._sets = _spread(weights)
        is_set = self._sets[:, None] == np.arange(len(weights))
        # The number of each window of the round within its set.
        self._ranks = (np.cumsum(is_set, axis=0) - 1)[np.arange(len(self._sets)), self._sets]

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, as NumPy arrays."""
        first = step * self.batch_size
        drawn = [self.draw(first + row) for row in row_indices]
        windows = np.empty((len(drawn), self.context_length + 1), TOKEN_DTYPE)
        batches: list[tuple[list[int], Batch]] = []
        for number, loader in enumerate(self._loaders):
            of_set = [i for i, (which, _) in enumerate(drawn) if which == number]
            positions = [drawn[i][1] for i in of_set]
            if isinstance(loader, TrainLoader):
                windows[of_set] = loader.windows(positions)
            else:
                batches.append((of_set, loader.batch(positions)))
        if not self.segmented:
            return Batch(windows)
        weights = np.ones((len(drawn), self.context_length), np.float32)
        segments = np.zeros((len(drawn), self.context_length), np.int32)
        if self._first_token is not None:
            segments[:] = np.cumsum(windows[:, :-1] == self._first_token, axis=1)
        for of_set, batch in batches:
            windows[of_set], weights[of_set], segments[of_set] = batch
        return Batch(windows, weights, segments)

    def origins(self, step: int) -> list[Origin]:
        """Returns where every row of global batch `step` is from."""
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
