"""Folders of token shards: the stream of one split, checked against meta.json. No JAX."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.data.meta import META, read_meta
from gpt2_jax.data.shard_file import TOKEN_DTYPE, ShardFile, open_shard
from gpt2_jax.errors import UserError

SPLITS = ("train", "val")


class TokenArray:
    """A read-only stream of tokens over the concatenation of shards, or of arrays in memory."""

    def __init__(
        self, parts: Sequence[ShardFile | np.ndarray], start: int = 0, stop: int | None = None
    ) -> None:
        """Joins `parts`, files or uint16 arrays [n_i] in order; takes tokens start .. stop-1."""
        self._parts = parts
        self._begins = [0]
        for part in parts:
            self._begins.append(self._begins[-1] + len(part))
        self._start, self._stop = start, self._begins[-1] if stop is None else stop

    def __len__(self) -> int:
        """Tokens in the stream."""
        return self._stop - self._start

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens start .. start+length-1 as uint16 [length]; see `fill`."""
        if length < 0:
            raise IndexError(f"{length} tokens")
        tokens = np.empty(length, TOKEN_DTYPE)
        self.fill([(start, tokens)])
        return tokens

    def fill(self, wanted: Iterable[tuple[int, np.ndarray]]) -> None:
        """Fills each contiguous uint16 array with the tokens from the index beside it on.

        A file is opened once, however many arrays are filled from it.

        Raises:
          IndexError: outside the stream.
          UserError: for a file that is gone or was changed; see `ShardFile`.
        """
        by_part: dict[int, list[tuple[int, np.ndarray]]] = {}
        for start, array in wanted:
            if not 0 <= start <= start + len(array) <= len(self):
                raise IndexError(f"tokens {start}..{start + len(array)} of {len(self)}")
            for part, first, piece in self._pieces(self._start + start, array):
                by_part.setdefault(part, []).append((first, piece))
        for number, pieces in by_part.items():
            part = self._parts[number]
            if isinstance(part, ShardFile):
                part.fill(pieces)
            else:
                for first, piece in pieces:
                    piece[:] = part[first : first + len(piece)]

    def part(self, start: int, stop: int) -> TokenArray:
        """Tokens start .. stop-1 as a TokenArray over the same parts."""
        return TokenArray(self._parts, self._start + start, self._start + stop)

    def _pieces(self, start: int, array: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """(part, first token in it, what to fill of the array) for each part that is touched."""
        part = bisect.bisect_right(self._begins, start) - 1
        while len(array):
            count = min(len(array), self._begins[part + 1] - start)
            if count:
                yield part, start - self._begins[part], array[:count]
            start, array, part = start + count, array[count:], part + 1


def open_tokens(path: str | Path, split: str, *, val_fraction: float = 0.1) -> TokenArray:
    """The tokens of one split of a folder.

    Takes files named `*train*.bin` and `*val*.bin` in sorted order. In a folder without val files
    the stream is cut at int(n * (1 - val_fraction)), as nanoGPT's prepare scripts do: train is what
    comes before, val the rest.

    Raises:
      UserError: when files are missing, corrupt or not as meta.json says, or the split is empty.
    """
    if split not in SPLITS:
        raise UserError(f"split must be train or val, not {split!r}")
    folder = Path(path)
    files = _token_files(folder)
    meta = read_meta(folder)
    # Val shards that meta.json knows and the folder lost are an error below, not another split.
    has_val = bool(files["val"]) or bool(meta and meta["splits"].get("val"))
    source = split if has_val else "train"
    if not files[source]:
        raise UserError(
            f"{folder} has no {source} tokens (*{source}*.bin): make them with "
            f"gpt2-jax prepare --out {folder}"
        )
    shards = [open_shard(file) for file in files[source]]
    if meta is not None:
        _check_against_meta(folder, source, shards, meta)
    tokens = TokenArray(shards)
    if not has_val:
        cut = int(len(tokens) * (1 - val_fraction))
        tokens = tokens.part(0, cut) if split == "train" else tokens.part(cut, len(tokens))
    if not len(tokens):
        raise UserError(
            f"{folder} has no val files, and data.val_fraction={val_fraction:g} leaves no {split} "
            "tokens: choose another"
        )
    return tokens


def check_vocab(tokens: TokenArray, vocab_size: int) -> None:
    """Looks at slices over the whole stream, its start and its end for ids not below `vocab_size`.

    A spot check of about a quarter of a million tokens: ids out of range give NaN or, worse, clamp.

    Raises:
      UserError: naming the id and where it is.
    """
    length = min(4096, len(tokens))
    starts = np.linspace(0, len(tokens) - length, 64).astype(np.int64).tolist()
    slices = np.empty((len(starts), length), TOKEN_DTYPE)
    tokens.fill(zip(starts, slices, strict=True))
    for start, ids in zip(starts, slices, strict=True):
        if len(ids) and ids.max() >= vocab_size:
            where = start + int(ids.argmax())
            raise UserError(
                f"token {where} is id {ids.max()}, but the vocabulary has ids 0 to "
                f"{vocab_size - 1}: model.vocab_size and data.tokenizer must fit the data"
            )


def fingerprint(*paths: str | Path) -> str:
    """A sha256 in hex that tells folders of tokens apart, without reading them all.

    Of one folder, over the shards' sums in meta.json, or without it over each file's name, size and
    64 slices of 4 KB: a change between those goes unnoticed. Of several, over theirs in this order.

    Raises:
      UserError: for a folder that is missing, or a file in it that cannot be read or is no shard.
    """
    digest = hashlib.sha256()
    if len(paths) != 1:
        digest.update("\n".join(map(fingerprint, paths)).encode())
        return digest.hexdigest()
    folder = Path(paths[0])
    if (meta := read_meta(folder)) is not None:
        for split in SPLITS:
            for shard in meta["splits"].get(split, {}).get("shards", ()):
                digest.update(f"{split} {shard['file']} {shard['sha256']}\n".encode())
    else:
        for file in [file for files in _token_files(folder).values() for file in files]:
            _digest_slices(file, digest.update)
    return digest.hexdigest()


def _token_files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UserError(
            f"no data folder {folder}: make it with gpt2-jax prepare --out {folder}, "
            "or name another"
        )
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in sorted(folder.glob("*.bin")):
        splits = [split for split in SPLITS if split in file.name]
        if len(splits) == 2:
            raise UserError(f"{file} names both train and val: rename it to name one of them")
        for split in splits:
            files[split].append(file)
    return files


def _digest_slices(file: Path, update: Callable[[bytes], None]) -> None:
    size = open_shard(file).size
    update(os.fsencode(file.name) + f" {size}\n".encode())
    try:
        with open(file, "rb") as opened:
            for start in np.linspace(0, max(size - 4096, 0), 64).astype(np.int64).tolist():
                opened.seek(start)
                update(opened.read(4096))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None


def _check_against_meta(
    folder: Path,
    split: str,
    shards: Iterable[ShardFile],
    meta: Mapping[str, Any],
) -> None:
    listed = meta["splits"].get(split, {}).get("shards", [])
    promised = {shard["file"]: shard["tokens"] for shard in listed}
    found = {shard.path.name: len(shard) for shard in shards}
    for name in sorted(promised.keys() | found.keys()):
        if promised.get(name) != found.get(name):
            raise UserError(
                f"{folder / name} has {found.get(name, 'no')} tokens, but {META} says "
                f"{promised.get(name, 'none')}: prepare the data anew, or remove what was added"
            )
