"""Folders of token shards, each split of which is one stream. Nothing here imports JAX."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.data.folders import DataFolder, require_folder
from gpt2_jax.data.meta import META, read_meta
from gpt2_jax.data.shard_file import TOKEN_DTYPE, Shard
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote, resolve_path

SPLITS = ("train", "val")
_SLICE_BYTES = 4096


class TokenArray:
    """Reads the concatenation of shards, or of arrays in memory, as one stream of tokens."""

    def __init__(
        self,
        sources: Sequence[Shard | np.ndarray],
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        """Joins files or uint16 arrays [n_i] in order.

        Args:
          sources: the files or arrays.
          start: the first token of the stream, counted in all sources.
          stop: the token after the last one; None for the end of the sources.
        """
        self._sources = sources
        self._begins = [0]
        for source in sources:
            self._begins.append(self._begins[-1] + len(source))
        self._start, self._stop = start, self._begins[-1] if stop is None else stop

    def __len__(self) -> int:
        """Returns the number of tokens in the stream."""
        return self._stop - self._start

    def read(self, start: int, length: int) -> np.ndarray:
        """Returns tokens start .. start+length-1 as uint16 [length]; raises what `fill` does."""
        if length < 0:
            raise IndexError(f"cannot read {length} tokens")
        tokens = np.empty(length, TOKEN_DTYPE)
        self.fill([(start, tokens)])
        return tokens

    def fill(self, wanted: Iterable[tuple[int, np.ndarray]]) -> None:
        """Fills arrays with tokens, and opens each file once however many arrays it fills.

        Args:
          wanted: pairs of the first token and a contiguous uint16 array to fill from there on.

        Raises:
          IndexError: if tokens outside the stream are requested.
          UserError: if a file is missing or has changed; see `Shard`.
          StorageError: if a bucket cannot be reached.
        """
        by_source: dict[int, list[tuple[int, np.ndarray]]] = {}
        for start, array in wanted:
            if not 0 <= start <= start + len(array) <= len(self):
                raise IndexError(f"tokens {start}..{start + len(array)} of {len(self)}")
            for number, first, view in self._views(self._start + start, array):
                by_source.setdefault(number, []).append((first, view))
        # All shards of a kind at once, since a request takes long and many can run at a time.
        by_kind: dict[type[Shard], dict[Shard, list[tuple[int, np.ndarray]]]] = {}
        for number, views in by_source.items():
            source = self._sources[number]
            if isinstance(source, np.ndarray):
                for first, view in views:
                    view[:] = source[first : first + len(view)]
            else:
                by_kind.setdefault(type(source), {}).setdefault(source, []).extend(views)
        for kind, wanted_of_kind in by_kind.items():
            kind.fill_all(wanted_of_kind)

    def slice(self, start: int, stop: int) -> TokenArray:
        """Returns tokens start .. stop-1 as a stream over the same sources."""
        return TokenArray(self._sources, self._start + start, self._start + stop)

    def _views(self, start: int, array: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields (source, first token in it, view of the array) for every source of the tokens."""
        number = bisect.bisect_right(self._begins, start) - 1
        while len(array):
            count = min(len(array), self._begins[number + 1] - start)
            if count:
                yield number, start - self._begins[number], array[:count]
            start, array, number = start + count, array[count:], number + 1


def open_tokens(path: str | Path, split: str, *, val_fraction: float = 0.1) -> TokenArray:
    """Returns the tokens of one split of a folder.

    The files are those named `*train*.bin` and `*val*.bin`, in sorted order. In a folder without
    val files the stream is cut at int(n * (1 - val_fraction)), as in nanoGPT's prepare scripts: the
    train split is the part before, the val split the rest.

    Args:
      path: the folder, on a disk or in a bucket.
      split: "train", "val", or another split that meta.json lists, such as "test".
      val_fraction: size of the val split in a folder without val files.

    Raises:
      UserError: if files are missing, corrupt or not as meta.json says, or the split is empty.
      StorageError: if a bucket cannot be reached.
    """
    folder = resolve_path(path)
    listed = require_folder(path)
    files = _token_files(folder, listed)
    meta = read_meta(folder)
    if split not in SPLITS:
        if meta is None or split not in meta["splits"]:
            raise UserError(f"split must be train or val, or one that {META} lists, not {split!r}")
        return _open_listed(folder, listed, split, meta)
    # If meta.json lists val shards that are missing, that is an error below and not another split.
    has_val = bool(files["val"]) or bool(meta and meta["splits"].get("val"))
    source = split if has_val else "train"
    if not files[source]:
        remedy = f"make them with gpt2-jax prepare --out {folder}"
        if is_remote(folder):
            remedy = "copy all files of a folder that gpt2-jax prepare made"
        raise UserError(f"{folder} has no {source} tokens (*{source}*.bin): {remedy}")
    shards = listed.open_shards(files[source])
    if meta is not None:
        _check_against_meta(folder, source, shards, meta)
    tokens = TokenArray(shards)
    if not has_val:
        cut = int(len(tokens) * (1 - val_fraction))
        tokens = tokens.slice(0, cut) if split == "train" else tokens.slice(cut, len(tokens))
    if not len(tokens):
        raise UserError(
            f"{folder} has no val files, and data.val_fraction={val_fraction:g} leaves no {split} "
            "tokens: choose another fraction"
        )
    return tokens


def _open_listed(
    folder: Path, listed: DataFolder, split: str, meta: Mapping[str, Any]
) -> TokenArray:
    """Returns the tokens of a split whose files are those that meta.json lists."""
    names = [shard["file"] for shard in meta["splits"][split]["shards"]]
    if missing := sorted({*names} - {*listed.names}):
        raise UserError(f"{folder / missing[0]} is missing: prepare the data again")
    shards = listed.open_shards(names)
    _check_against_meta(folder, split, shards, meta)
    return TokenArray(shards)


def check_vocab(tokens: TokenArray, vocab_size: int) -> None:
    """Checks slices across the whole stream for ids that are not below `vocab_size`.

    This samples about a quarter of a million tokens. It matters because ids out of range give NaN
    or, worse, are clamped without an error.

    Args:
      tokens: the stream, of which the start and the end are among the slices.
      vocab_size: the number of ids.

    Raises:
      UserError: naming the id and its position.
    """
    length = min(4096, len(tokens))
    starts = np.linspace(0, len(tokens) - length, 64).astype(np.int64).tolist()
    slices = np.empty((len(starts), length), TOKEN_DTYPE)
    tokens.fill(zip(starts, slices, strict=True))
    for start, ids in zip(starts, slices, strict=True):
        if len(ids) and ids.max() >= vocab_size:
            position = start + int(ids.argmax())
            raise UserError(
                f"token {position} has the id {ids.max()}, but ids must be from 0 to "
                f"{vocab_size - 1}: set model.vocab_size and data.tokenizer to those of the data"
            )


def fingerprint(*paths: str | Path) -> str:
    """Returns a sha256 in hex that distinguishes folders of tokens without reading them fully.

    For one folder it covers the shards' sums in meta.json. Without meta.json it covers the name and
    size of each file and 64 slices of 4 KB, so a change between these goes unnoticed. For several
    folders it covers their fingerprints in this order.

    Raises:
      UserError: if a folder is missing, or a file in it cannot be read or is not a shard.
    """
    digest = hashlib.sha256()
    if len(paths) != 1:
        digest.update("\n".join(map(fingerprint, paths)).encode())
        return digest.hexdigest()
    folder = resolve_path(paths[0])
    if (meta := read_meta(folder)) is not None:
        for split in SPLITS:
            for shard in meta["splits"].get(split, {}).get("shards", ()):
                digest.update(f"{split} {shard['file']} {shard['sha256']}\n".encode())
            # Of examples, where they begin matters as much as their tokens.
            if index := meta["splits"].get(split, {}).get("index"):
                digest.update(f"{split} {index['file']} {index['sha256']}\n".encode())
    else:
        listed = require_folder(folder)
        names = [name for files in _token_files(folder, listed).values() for name in files]
        for shard in listed.open_shards(names):
            digest.update(os.fsencode(shard.path.name) + f" {shard.size}\n".encode())
            starts = np.linspace(0, max(shard.size - _SLICE_BYTES, 0), 64).astype(np.int64)
            for content in shard.slices(starts.tolist(), _SLICE_BYTES):
                digest.update(content)
    return digest.hexdigest()


def _token_files(folder: Path, listed: DataFolder) -> dict[str, list[str]]:
    """Returns the names of the files of each split in sorted order."""
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in listed.names:
        if not name.endswith(".bin"):
            continue
        splits = [split for split in SPLITS if split in name]
        if len(splits) == 2:
            raise UserError(
                f"{folder / name} has both train and val in its name: rename it to have one of them"
            )
        for split in splits:
            files[split].append(name)
    return files


def _check_against_meta(
    folder: Path,
    split: str,
    shards: Iterable[Shard],
    meta: Mapping[str, Any],
) -> None:
    """Raises UserError unless the folder has exactly the shards in meta.json, by name and size."""
    listed = meta["splits"].get(split, {}).get("shards", [])
    expected = {shard["file"]: shard["tokens"] for shard in listed}
    actual = {shard.path.name: len(shard) for shard in shards}
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise UserError(
                f"{folder / name} has {actual.get(name, 'no')} tokens, but {META} says "
                f"{expected.get(name, 'none')}: prepare the data again, or remove added files"
            )
