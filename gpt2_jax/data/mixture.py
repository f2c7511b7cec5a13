"""Batches drawn from several sets of tokens in fixed proportions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.loader import Batch, TrainLoader
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError


class MixtureLoader:
    """Windows of several loaders in turn, each going through its own shuffled epochs.

    Windows come in rounds. A round has as many of each set as its share says, spread evenly, so
    that after any number of windows each of n sets is at most n / 2 away from its part. Which set a
    window is of, and the how manieth of it, follows from its number alone: a batch is a pure
    function of (seed, step) here too.
    """

    def __init__(self, loaders: Sequence[TrainLoader], shares: Sequence[int]) -> None:
        """Lays out a round.

        Args:
          loaders: of equal batch size and context length.
          shares: windows of each in a round, at least 1.

        Raises:
          UserError: when the loaders do not fit together.
        """
        self.batch_size, self.context_length = loaders[0].batch_size, loaders[0].context_length
        if any(
            (each.batch_size, each.context_length) != (self.batch_size, self.context_length)
            for each in loaders
        ):
            raise UserError("the sets of a mixture must have one batch size and context length")
        self._loaders, self._shares = loaders, shares
        self._sets = _spread(shares)
        is_set = self._sets[:, None] == np.arange(len(shares))
        self._ranks = (np.cumsum(is_set, axis=0) - 1)[np.arange(len(self._sets)), self._sets]

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """The named rows of global batch `step`, as NumPy arrays [len(row_indices), T]."""
        first = step * self.batch_size
        drawn = [self.draw(first + row) for row in row_indices]
        windows = np.empty((len(drawn), self.context_length + 1), TOKEN_DTYPE)
        for number, loader in enumerate(self._loaders):
            mine = [i for i, (which, _) in enumerate(drawn) if which == number]
            windows[mine] = loader.windows([drawn[i][1] for i in mine])
        return Batch.of_windows(windows)

    def origins(self, step: int) -> list[tuple[str, int]]:
        """(folder, first token in its train split) of every row of global batch `step`."""
        first = step * self.batch_size
        drawn = [self.draw(first + row) for row in range(self.batch_size)]
        return [self._loaders[which].origin(position) for which, position in drawn]

    def draw(self, position: int) -> tuple[int, int]:
        """(set, number within it) of the window drawn as number `position`, from 0 on."""
        rounds, place = divmod(position, len(self._sets))
        which = int(self._sets[place])
        return which, rounds * self._shares[which] + int(self._ranks[place])


def _spread(shares: Sequence[int]) -> np.ndarray:
    """The set of each window of a round [sum(shares)]: every set's windows at even distances."""
    places = [(np.arange(share) + 0.5) / share for share in shares]
    sets = np.repeat(np.arange(len(shares)), shares)
    return sets[np.argsort(np.concatenate(places), kind="stable")]
