"""Token shards: files of uint16 token ids with a small header, read through memory maps.

A shard is 256 little-endian int32 (magic 20240520, version 1, token count, zeros), then that many
little-endian uint16: the format of llm.c's GPT-2 data and of the public FineWeb shards. nanoGPT's
`train.bin` and `val.bin`, which have no header, are read too. Nothing here imports JAX.
"""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.data.meta import META, read_meta
from gpt2_jax.errors import UserError

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_DTYPE = np.dtype("<u2")
MAX_VOCAB_SIZE = 2**16
SPLITS = ("train", "val")
# What else llm.c writes with a header of this kind.
_OTHER_MAGIC = {
    20240801: "Llama 3 tokens, uint32",
    20240522: "multiple-choice questions of an evaluation",
}
# nanoGPT's names; any other file must start with the header.
_HEADERLESS = ("train.bin", "val.bin")


class TokenArray:
    """A read-only stream of tokens over the concatenation of arrays, normally mapped shards."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        """Joins `parts`, uint16 arrays [n_i] in order, without copying them."""
        self._parts = [part for part in parts if len(part)]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))

    def __len__(self) -> int:
        """Tokens in the stream."""
        return self._starts[-1]

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens start .. start+length-1 as uint16 [length]; IndexError outside the stream."""
        if not 0 <= start <= start + length <= len(self):
            raise IndexError(f"tokens {start}..{start + length} of {len(self)}")
        first = bisect.bisect_right(self._starts, start) - 1
        if start + length <= self._starts[min(first + 1, len(self._parts))]:
            offset = start - self._starts[first]
            return self._parts[first][offset : offset + length] if length else _NO_TOKENS
        return np.concatenate(self._views(start, start + length))

    def part(self, start: int, stop: int) -> TokenArray:
        """Tokens start .. stop-1 as a TokenArray over the same memory."""
        return TokenArray(self._views(start, stop))

    def _views(self, start: int, stop: int) -> list[np.ndarray]:
        return [
            part[max(start - begin, 0) : max(stop - begin, 0)]
            for part, begin in zip(self._parts, self._starts, strict=False)
        ]


_NO_TOKENS = np.zeros(0, TOKEN_DTYPE)


def write_shard(path: str | Path, arrays: Iterable[np.ndarray], count: int) -> str:
    """Writes one shard and returns its sha256.

    Args:
      path: the file; it is whole only once this returns.
      arrays: the tokens [n_i] in order, each id below 65536.
      count: tokens in all of them.

    Raises:
      UserError: for ids that uint16 cannot hold.
    """
    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, VERSION, count
    digest = hashlib.sha256(header.tobytes())
    written = 0
    with open(path, "wb") as file:
        file.write(header.tobytes())
        for tokens in arrays:
            if tokens.dtype != TOKEN_DTYPE:
                if len(tokens) and not 0 <= tokens.min() <= tokens.max() < MAX_VOCAB_SIZE:
                    raise UserError("token ids must be from 0 to 65535 to be stored as uint16")
                tokens = tokens.astype(TOKEN_DTYPE)
            content = np.ascontiguousarray(tokens).data
            digest.update(content)
            file.write(content)
            written += len(tokens)
        if written != count:
            raise ValueError(f"{path}: {written} tokens instead of {count}")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def open_tokens(path: str | Path, split: str, *, val_fraction: float = 0.1) -> TokenArray:
    """The tokens of one split of a folder, memory-mapped.

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
    arrays = [_map_shard(file) for file in files[source]]
    if meta is not None:
        _check_against_meta(folder, source, files[source], arrays, meta)
    tokens = TokenArray(arrays)
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
    for start in np.linspace(0, len(tokens) - length, 64).astype(np.int64).tolist():
        ids = tokens.read(start, length)
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
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with open(file, "rb") as opened:
                for start in np.linspace(0, max(size - 4096, 0), 64).astype(np.int64).tolist():
                    opened.seek(start)
                    digest.update(opened.read(4096))
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


def _map_shard(file: Path) -> np.ndarray:
    """The file's tokens as a read-only memory map, its header checked against its size."""
    size = file.stat().st_size
    if size == 0:
        raise UserError(f"{file} is empty: make it anew with gpt2-jax prepare")
    header = np.fromfile(file, "<i4", count=256)
    if len(header) and int(header[0]) in _OTHER_MAGIC:
        raise UserError(
            f"{file} is no GPT-2 data: its header says {_OTHER_MAGIC[int(header[0])]} (llm.c's "
            f"{header[0]}); prepare the text with gpt2-jax prepare, or take the file away"
        )
    if not len(header) or header[0] != MAGIC:
        if file.name not in _HEADERLESS:
            raise UserError(
                f"{file} is not a token shard: it does not start with {MAGIC} (only nanoGPT's "
                "train.bin and val.bin may have no header)"
            )
        if size % TOKEN_DTYPE.itemsize:
            raise UserError(f"{file} has an odd size, {size} bytes: it is no array of uint16")
        return np.memmap(file, TOKEN_DTYPE, "r").view(np.ndarray)
    if len(header) < 256:
        raise UserError(f"{file} is cut off in its header: {size} bytes; make or copy it anew")
    version, count = int(header[1]), int(header[2])
    if version != VERSION:
        raise UserError(f"{file} has version {version} of the shard format; only 1 is known")
    if count < 1:
        raise UserError(f"{file} holds {count} tokens by its header: make or copy it anew")
    expected = HEADER_BYTES + count * TOKEN_DTYPE.itemsize
    if size != expected:
        raise UserError(
            f"{file} is corrupt: {count} tokens by its header are {expected} bytes, the file has "
            f"{size}; make or copy it anew"
        )
    return np.memmap(file, TOKEN_DTYPE, "r", HEADER_BYTES, (count,)).view(np.ndarray)


def _check_against_meta(
    folder: Path,
    split: str,
    files: Iterable[Path],
    arrays: Iterable[np.ndarray],
    meta: Mapping[str, Any],
) -> None:
    shards = meta["splits"].get(split, {}).get("shards", [])
    promised = {shard["file"]: shard["tokens"] for shard in shards}
    found = {file.name: len(array) for file, array in zip(files, arrays, strict=True)}
    for name in sorted(promised.keys() | found.keys()):
        if promised.get(name) != found.get(name):
            raise UserError(
                f"{folder / name} has {found.get(name, 'no')} tokens, but {META} says "
                f"{promised.get(name, 'none')}: prepare the data anew, or remove what was added"
            )
