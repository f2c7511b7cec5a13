"""The encoded work items as one stream of tokens, which is cut into the shards of both splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.data.shard_file import TOKEN_DTYPE, write_shard
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.encode import ItemTotals, read_starts
from gpt2_jax.prepare.engines import Engine

# Tokens copied at a time when work items are joined.
_COPY_TOKENS = 1 << 22


class Shard(NamedTuple):
    """Describes a shard to write, and the ranges of token files that make it up."""

    split: str
    path: str
    tokens: int
    ranges: tuple[tuple[str, int, int], ...]
    """(file, first token, number of tokens), in order."""
    vocab_size: int


def join_shard(shard: Shard) -> str:
    """Writes a shard from the tokens of work items and returns its sha256.

    Raises:
      UserError: if a token is not in the vocabulary.
    """

    def arrays() -> Iterator[np.ndarray]:
        for path, first, count in shard.ranges:
            tokens = np.memmap(path, TOKEN_DTYPE, "r", first * TOKEN_DTYPE.itemsize, (count,))
            for start in range(0, count, _COPY_TOKENS):
                yield _checked(tokens[start : start + _COPY_TOKENS], path, shard.vocab_size)

    return write_shard(shard.path, arrays(), shard.tokens)


def _checked(tokens: np.ndarray, path: str, vocab_size: int) -> np.ndarray:
    """Returns the tokens if the vocabulary has all of them, since a disk may have damaged some."""
    if len(tokens) and tokens.max() >= vocab_size:
        raise UserError(
            f"{path} is damaged: it has a token {tokens.max()}, but ids must be from 0 to "
            f"{vocab_size - 1}; remove it and run the same command again"
        )
    return tokens


class TokenStream:
    """Joins the tokens of all work items, which stay in their files, into one stream."""

    def __init__(self, keys: Sequence[str], totals: Sequence[ItemTotals], folder: Path) -> None:
        """Records the items without opening their files.

        Args:
          keys: the key of each work item, in order.
          totals: the counts of each.
          folder: the folder with the files that `encode_item` wrote.
        """
        self.keys, self.totals, self.folder = keys, totals, folder
        self.starts = np.cumsum([0, *(each.tokens for each in totals)])

    def __len__(self) -> int:
        """Returns the number of tokens in the stream."""
        return int(self.starts[-1])

    def cut(
        self,
        folder: Path,
        engine: Engine,
        *,
        byte_lengths: np.ndarray,
        val_fraction: float,
        tokens_per_shard: int,
    ) -> dict[str, Any]:
        """Writes the shards of train and val to `folder`; returns meta.json's `splits`.

        Args:
          folder: the folder for the shards.
          engine: runs the tasks that write them.
          byte_lengths: int32 [vocab_size], bytes of text that each id stands for.
          val_fraction: how much of the end of the stream becomes val, from 0 to less than 1.
          tokens_per_shard: tokens in every shard but the last of each split.

        Raises:
          UserError: if a split would have no tokens.
        """
        cut = int(len(self) * (1 - val_fraction))
        bounds = {"train": (0, cut)}
        if val_fraction:
            bounds["val"] = (cut, len(self))
        for split, (start, stop) in bounds.items():
            if start == stop:
                raise UserError(
                    f"val_fraction={val_fraction:g} leaves no {split} tokens of the corpus's "
                    f"{len(self)}: choose another fraction, or give more text"
                )
        return self.write(folder, engine, bounds, byte_lengths, tokens_per_shard)

    def write(
        self,
        folder: Path,
        engine: Engine,
        bounds: Mapping[str, tuple[int, int]],
        byte_lengths: np.ndarray,
        tokens_per_shard: int,
    ) -> dict[str, Any]:
        """Writes the shards of splits that are given as (first token, token after the last).

        The other arguments and what is returned are those of `cut`.
        """
        shards: list[Shard] = []
        splits: dict[str, Any] = {}
        for split, (start, stop) in bounds.items():
            first_counts = self.counts(start, byte_lengths)
            last_counts = self.counts(stop, byte_lengths)
            # A document that the cut divides is counted in the split where it begins.
            size = last_counts[0] - first_counts[0]
            documents = last_counts[1] - first_counts[1]
            splits[split] = {"tokens": stop - start, "bytes": size, "documents": documents}
            for number, first in enumerate(range(start, stop, tokens_per_shard)):
                last = min(first + tokens_per_shard, stop)
                path = str(folder / f"{split}_{number:06d}.bin")
                ranges = self.ranges(first, last)
                shards.append(Shard(split, path, last - first, ranges, len(byte_lengths)))
        sums = dict(engine.map(join_shard, shards))
        for i, shard in enumerate(shards):
            name = os.path.basename(shard.path)
            described = {"file": name, "tokens": shard.tokens, "sha256": sums[i]}
            splits[shard.split].setdefault("shards", []).append(described)
        return splits

    def ranges(self, start: int, stop: int) -> tuple[tuple[str, int, int], ...]:
        """Returns (file, first token, number of tokens) for tokens start .. stop-1."""
        ranges = []
        for i in range(self._item_at(start), len(self.keys)):
            first, last = max(start, int(self.starts[i])), min(stop, int(self.starts[i + 1]))
            if first >= stop:
                break
            if first < last:
                path = str(self.folder / f"{self.keys[i]}.tokens")
                ranges.append((path, first - int(self.starts[i]), last - first))
        return tuple(ranges)

    def counts(self, stop: int, byte_lengths: np.ndarray) -> tuple[int, int]:
        """Returns the bytes of text, and the documents that begin, in the first `stop` tokens."""
        complete = self._item_at(stop) if stop < len(self) else len(self.keys)
        size = sum(each.bytes for each in self.totals[:complete])
        documents = sum(each.documents for each in self.totals[:complete])
        if complete < len(self.keys):
            rest = stop - int(self.starts[complete])
            starts = read_starts(self.folder, self.keys[complete])
            documents += int(np.searchsorted(starts, rest))
            path = str(self.folder / f"{self.keys[complete]}.tokens")
            tokens = _checked(np.fromfile(path, TOKEN_DTYPE, rest), path, len(byte_lengths))
            size += int(byte_lengths[tokens].sum(dtype=np.int64))
        return size, documents

    def _item_at(self, token: int) -> int:
        """Returns the index of the work item that holds a token."""
        return int(np.searchsorted(self.starts, token, "right")) - 1
