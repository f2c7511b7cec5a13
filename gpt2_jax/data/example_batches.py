"""Batches of examples, each of which sees only itself, and of which only answers are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gpt2_jax.data.batch import Batch, Origin
from gpt2_jax.data.examples import Examples
from gpt2_jax.data.packing import Epochs, pack
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Holds the examples of a split that fit a context, and how much of each prompt does.

    Attributes:
      examples: all examples of the split.
      numbers: int64 [n], those that fit.
      prompts: int64 [n], tokens of each of their prompts that are kept, from its start, at least 1.
      lengths: int64 [n], tokens of each, with its answer and the end of text.
      cut: how many prompts are not kept whole.
      context_length: T; a row has one token more.
    """

    examples: Examples
    numbers: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray
    cut: int
    context_length: int

    @property
    def left_out(self) -> int:
        """Returns the number of examples whose answers do not fit."""
        return len(self.examples) - len(self.numbers)

    def describe(self, split: str) -> str | None:
        """Returns what was cut and left out of the split, or None if nothing was."""
        parts = []
        if self.cut:
            done = "prompt was cut at its end" if self.cut == 1 else "prompts were cut at their end"
            parts.append(f"{self.cut:,} {done}")
        if left := self.left_out:
            done = (
                "example was left out, because its answer does not fit"
                if left == 1
                else "examples were left out, because their answers do not fit"
            )
            parts.append(f"{left:,} {done}")
        if not parts:
            return None
        return (
            f"{' and '.join(parts)} (of {len(self.examples):,} {split} examples; "
            f"model.context_length={self.context_length})"
        )

    def batch(
        self, rows: Sequence[np.ndarray | None], padding: int, prompt_weight: float = 0.0
    ) -> Batch:
        """Returns a batch of rows; each is given as positions in `numbers`, or None if it is empty.

        A target counts 1 if it is a token of an answer or the end of text after it, and otherwise
        what a prompt does. What follows the last example of a row is a segment of its own, in which
        no target counts.

        Args:
          rows: the examples of each row, which fit it.
          padding: the token after the last example.
          prompt_weight: how much a token of a prompt counts, but for its first, which is no target.
        """
        T = self.context_length
        tokens = np.full((len(rows), T + 1), padding, TOKEN_DTYPE)
        weights = np.zeros((len(rows), T), np.float32)
        segments = np.zeros((len(rows), T), np.int32)
        wanted = []
        for r, row in enumerate(rows):
            at = 0
            for number, i in enumerate(() if row is None else row.tolist(), 1):
                example, prompt, length = self.numbers[i], int(self.prompts[i]), self.lengths[i]
                answer, end = at + prompt, at + int(length)
                wanted.append((int(self.examples.starts[example]), tokens[r, at:answer]))
                wanted.append((int(self.examples.answers[example]), tokens[r, answer:end]))
                weights[r, at : answer - 1] = prompt_weight
                weights[r, answer - 1 : end - 1] = 1
                segments[r, at:end] = number
                at, segments[r, end:] = end, number + 1
        self.examples.tokens.fill(wanted)
        return Batch(tokens, weights, segments)


def fit(examples: Examples, context_length: int, name: str) -> Fitted:
    """Returns the examples that fit a context, with prompts cut at their end where they must be.

    Args:
      examples: a split.
      context_length: T.
      name: names the split in messages.

    Raises:
      UserError: if none fits.
    """
    answers = examples.stops - examples.answers
    # The answer's first token is the target of at least one token of the prompt.
    (numbers,) = np.nonzero(answers <= context_length)
    if not len(numbers):
        raise UserError(
            f"{name}: no example fits model.context_length={context_length}, because the shortest "
            f"answer has {answers.min()} tokens with its end of text: increase it, or shorten the "
            "answers"
        )
    whole = (examples.answers - examples.starts)[numbers]
    prompts = np.minimum(whole, context_length + 1 - answers[numbers])
    lengths = prompts + answers[numbers]
    cut = int((prompts < whole).sum())
    return Fitted(examples, numbers, prompts, lengths, cut, context_length)


class ExampleLoader:
    """Draws packed rows without end; every epoch has each example that fits exactly once."""

    weighted = True
    segmented = True

    def __init__(
        self,
        fitted: Fitted,
        *,
        batch_size: int,
        seed: int,
        padding: int,
        folder: str = "",
        prompt_weight: float = 0.0,
    ) -> None:
        """Fixes the order.

        Args:
          fitted: the train split.
          batch_size: B, rows in the global batch.
          seed: seed of the order and the packing, from 0 to 2^32 - 1.
          padding: the token after the last example of a row: the end of text.
          folder: the file or folder of the examples, which `origins` repeats.
          prompt_weight: see `Fitted.batch`.
        """
        self.batch_size, self.context_length = batch_size, fitted.context_length
        self._fitted, self._padding, self._folder = fitted, padding, folder
        self._prompt_weight = prompt_weight
        self._epochs = Epochs(fitted.lengths, fitted.context_length + 1, seed)

    @property
    def rows_per_epoch(self) -> int:
        """Returns the rows of the first epoch, from which later ones differ by few."""
        return self._epochs.rows_of(0)

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, a pure function of (seed, step, row)."""
        first = step * self.batch_size
        return self.batch([first + row for row in row_indices])

    def batch(self, positions: Sequence[int]) -> Batch:
        """Returns the rows drawn as these numbers, from 0 on."""
        rows = [self._epochs.row(each) for each in positions]
        return self._fitted.batch(rows, self._padding, self._prompt_weight)

    def origins(self, step: int) -> list[Origin]:
        """Returns (folder, lines of its examples) for every row of global batch `step`."""
        first = step * self.batch_size
        return [self.origin(first + row) for row in range(self.batch_size)]

    def origin(self, position: int) -> Origin:
        """Returns (folder, lines of its examples) for the row drawn as number `position`."""
        numbers = self._fitted.numbers[self._epochs.row(position)]
        return self._folder, self._fitted.examples.places(numbers)


class ExampleRows:
    """Makes one pass over packed examples in order; rows past the last have no examples."""

    weighted = True
    segmented = True

    def __init__(
        self, fitted: Fitted, *, batch_size: int, padding: int, limit: int | None = None
    ) -> None:
        """Packs the examples.

        Args:
          fitted: the val split.
          batch_size: B, rows in the global batch.
          padding: the token after the last example of a row: the end of text.
          limit: how many rows to score, from the first; by default all.
        """
        self.batch_size, self.context_length = batch_size, fitted.context_length
        self._fitted, self._padding = fitted, padding
        self._packing = pack(fitted.lengths, fitted.context_length + 1)
        self.num_rows = len(self._packing) if limit is None else min(limit, len(self._packing))

    def __len__(self) -> int:
        """Returns the number of batches in the pass."""
        return -(-self.num_rows // self.batch_size)

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of batch `step`, as NumPy arrays."""
        numbers = [step * self.batch_size + row for row in row_indices]
        rows = [self._packing.row(each) if each < self.num_rows else None for each in numbers]
        return self._fitted.batch(rows, self._padding)

    def targets(self, byte_lengths: np.ndarray) -> tuple[int, int]:
        """Returns the number of targets that count, and the bytes of text that they stand for.

        Args:
          byte_lengths: int32 [vocab_size], the bytes of each id.
        """
        count = size = 0
        for step in range(len(self)):
            batch = self.rows(step, range(self.batch_size))
            scored = batch.tokens[:, 1:][batch.weights > 0]
            count, size = count + len(scored), size + int(byte_lengths[scored].sum(dtype=np.int64))
        return count, size
