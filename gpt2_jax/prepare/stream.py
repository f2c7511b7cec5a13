"""The encoded parts as one stream of tokens, and how it is cut into the shards of both splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.data.shard_file import TOKEN_DTYPE, write_shard
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.encode import PartTotals, read_starts
from gpt2_jax.prepare.engines import Engine

# Tokens moved at a time when parts are joined.
_COPY_TOKENS = 1 << 22


class Shard(NamedTuple):
    """A shard to write, and the pieces of token files that make it up."""

    split: str
    path: str
    tokens: int
    pieces: tuple[tuple[str, int, int], ...]
    """(file, first token, tokens) in order."""
    vocab_size: int


def join_shard(shard: Shard) -> str:
    """Writes a shard from parts' tokens; returns its sha256.

    Raises:
      UserError: for a part with ids that the vocabulary lacks.
    """

    def arrays() -> Iterator[np.ndarray]:
        for path, first, count in shard.pieces:
            tokens = np.memmap(path, TOKEN_DTYPE, "r", first * TOKEN_DTYPE.itemsize, (count,))
            for start in range(0, count, _COPY_TOKENS):
                yield _checked(tokens[start : start + _COPY_TOKENS], path, shard.vocab_size)

    return write_shard(shard.path, arrays(), shard.tokens)


def _checked(tokens: np.ndarray, path: str, vocab_size: int) -> np.ndarray:
    """The tokens, all of which the vocabulary has: what a disk kept may not be what was written."""
    if len(tokens) and tokens.max() >= vocab_size:
        raise UserError(
            f"{path} is damaged: it has a token {tokens.max()}, but the vocabulary has ids 0 to "
            f"{vocab_size - 1}; remove it and run the same command again"
        )
    return tokens


class TokenStream:
    """The tokens of all parts, one after the other, in their files."""

    def __init__(self, keys: Sequence[str], totals: Sequence[PartTotals], folder: Path) -> None:
        """Opens nothing yet.

        Args:
          keys: of the parts, in order.
          totals: what each came to.
          folder: with the files of `encode_part`.
        """
        self.keys, self.totals, self.folder = keys, totals, folder
        self.starts = np.cumsum([0, *(part.tokens for part in totals)])

    def __len__(self) -> int:
        """Tokens in the stream."""
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
          byte_lengths: int32 [vocab_size], bytes of text that each id stands for.

        Raises:
          UserError: if a split would have no tokens.
        """
        cut = int(len(self) * (1 - val_fraction))
        bounds = {"train": (0, cut)}
        if val_fraction:
            bounds["val"] = (cut, len(self))
        shards: list[Shard] = []
        splits: dict[str, Any] = {}
        for split, (start, stop) in bounds.items():
            if start == stop:
                raise UserError(
                    f"val_fraction={val_fraction:g} leaves no {split} tokens of the corpus's "
                    f"{len(self)}: choose another, or give more text"
                )
            before, upto = self.counts(start, byte_lengths), self.counts(stop, byte_lengths)
            # A document that the cut divides counts where it begins.
            size, documents = upto[0] - before[0], upto[1] - before[1]
            splits[split] = {"tokens": stop - start, "bytes": size, "documents": documents}
            for number, first in enumerate(range(start, stop, tokens_per_shard)):
                last = min(first + tokens_per_shard, stop)
                path = str(folder / f"{split}_{number:06d}.bin")
                pieces = self.pieces(first, last)
                shards.append(Shard(split, path, last - first, pieces, len(byte_lengths)))
        sums = dict(engine.map(join_shard, shards))
        for i, shard in enumerate(shards):
            name = os.path.basename(shard.path)
            described = {"file": name, "tokens": shard.tokens, "sha256": sums[i]}
            splits[shard.split].setdefault("shards", []).append(described)
        return splits

    def pieces(self, start: int, stop: int) -> tuple[tuple[str, int, int], ...]:
        """(file, first token, tokens) for tokens start .. stop-1 of the stream."""
        pieces = []
        for i in range(self._part(start), len(self.keys)):
            first, last = max(start, int(self.starts[i])), min(stop, int(self.starts[i + 1]))
            if first >= stop:
                break
            if first < last:
                path = str(self.folder / f"{self.keys[i]}.tokens")
                pieces.append((path, first - int(self.starts[i]), last - first))
        return tuple(pieces)

    def counts(self, stop: int, byte_lengths: np.ndarray) -> tuple[int, int]:
        """(bytes of text, documents begun) in the first `stop` tokens."""
        whole = self._part(stop) if stop < len(self) else len(self.keys)
        size = sum(part.bytes for part in self.totals[:whole])
        documents = sum(part.documents for part in self.totals[:whole])
        if whole < len(self.keys):
            rest = stop - int(self.starts[whole])
            starts = read_starts(self.folder, self.keys[whole])
            documents += int(np.searchsorted(starts, rest))
            path = str(self.folder / f"{self.keys[whole]}.tokens")
            tokens = _checked(np.fromfile(path, TOKEN_DTYPE, rest), path, len(byte_lengths))
            size += int(byte_lengths[tokens].sum(dtype=np.int64))
        return size, documents

    def _part(self, token: int) -> int:
        """The part that holds a token."""
        return int(np.searchsorted(self.starts, token, "right")) - 1
