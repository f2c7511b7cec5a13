"""Folders of tokenized examples: token shards, and where in them prompts and answers begin.

Such a folder has the shards and the meta.json of any folder of tokens, and for each split an index,
`<split>_examples.npy`: an array of `INDEX`, a record for each example. The tokens of an example are
those of its prompt, its answer and the end of text, joined.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.data.folders import read_small_file, require_folder
from gpt2_jax.data.meta import META, read_meta
from gpt2_jax.data.shards import TokenArray, open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import resolve_path

FORMAT = "examples"
"""What meta.json says as its `format`."""
INDEX = np.dtype([("start", "<i8"), ("answer", "<i8"), ("line", "<i8"), ("digest", "<u8")])
"""The record of an example: its first token, the first token of its answer, both counted in the
split, its line in the file that it is from, and a hash of its tokens."""
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class Examples:
    """Holds examples whose tokens are read when they are needed.

    Attributes:
      tokens: the stream that the numbers of `starts`, `answers` and `stops` refer to.
      starts, answers, stops: int64 [n], the first token of each example, the first of its answer,
        and that after its end of text.
      lines: int64 [n], the line of each in its file.
      digests: uint64 [n], a hash of prompt and answer.
      files: the names of their files, or none if all are from one.
      file_numbers: int32 [n], the file of each in `files`; empty without them.
    """

    tokens: TokenArray
    starts: np.ndarray
    answers: np.ndarray
    stops: np.ndarray
    lines: np.ndarray
    digests: np.ndarray
    files: tuple[str, ...] = ()
    file_numbers: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.starts)

    def slice(self, start: int, stop: int) -> Examples:
        """Returns examples start .. stop-1."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        whole = {name: fields.pop(name) for name in ("tokens", "files")}
        return Examples(**whole, **{name: each[start:stop] for name, each in fields.items()})

    def places(self, numbers: np.ndarray) -> list[int] | list[str]:
        """Returns the lines of examples; where there are several files, each with its file."""
        lines = self.lines[numbers].tolist()
        if not self.files:
            return lines
        files = self.file_numbers[numbers].tolist()
        return [f"{self.files[i]} line {line}" for i, line in zip(files, lines, strict=True)]


def is_examples(meta: Mapping[str, Any] | None) -> bool:
    """Returns whether the content of a meta.json is that of a folder of examples."""
    return meta is not None and meta.get("format") == FORMAT


def digest(prompt: np.ndarray, answer: np.ndarray) -> int:
    """Returns a hash of an example from the tokens of its prompt and its answer, below 2^64."""
    summed = hashlib.blake2b(len(prompt).to_bytes(8, "little"), digest_size=8)
    summed.update(prompt.astype("<u2", copy=False).tobytes())
    summed.update(answer.astype("<u2", copy=False).tobytes())
    return int.from_bytes(summed.digest(), "little")


def held_out(count: int, val_fraction: float) -> int:
    """Returns how many of so many examples are the validation split: at least 1, and not all.

    Args:
      count: examples in all, at least 2.
      val_fraction: the share to hold out.
    """
    return min(max(count - int(count * (1 - val_fraction)), 1), count - 1)


def open_examples(
    path: str | Path, name: str, *, val_fraction: float = 0.1
) -> tuple[Examples, Examples]:
    """Returns the examples to train on and those to validate on.

    In a folder without a validation split, the last examples of the train split are held out.

    Args:
      path: the folder, on a disk or in a bucket.
      name: what the user calls it, for messages.
      val_fraction: the share of the examples to hold out in a folder without a validation split.

    Raises:
      UserError: if files are missing or damaged, or there is only one example.
      StorageError: if a bucket cannot be reached.
    """
    meta = read_meta(path)
    assert meta is not None, "the caller has read it"
    train = _open_split(path, "train", meta)
    if "val" in meta["splits"]:
        return train, _open_split(path, "val", meta)
    if len(train) < 2:
        raise UserError(only_one(name))
    cut = len(train) - held_out(len(train), val_fraction)
    return train.slice(0, cut), train.slice(cut, len(train))


def only_one(name: str) -> str:
    """Returns the message for a single example, from which none can be held out."""
    return (
        f"{name} has only one example, so that none can be held out for validation: add examples, "
        "or put those to validate on into val.jsonl beside train.jsonl and name their folder"
    )


def _open_split(path: str | Path, split: str, meta: Mapping[str, Any]) -> Examples:
    described = meta["splits"].get(split, {})
    file = resolve_path(path) / str(described.get("index", {}).get("file"))
    remedy = "remove the folder and prepare the data again"
    try:
        content = read_small_file(file)
        if content is None:
            raise UserError(f"{file} is missing: {remedy}")
        index = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read ({error}): {remedy}") from None
    tokens = open_tokens(path, split, val_fraction=0.0)
    if index.dtype != INDEX or index.shape != (described["documents"],) or not len(index):
        raise UserError(f"{file} does not fit {META}: {remedy}")
    starts, answers = index["start"], index["answer"]
    stops = np.append(starts[1:], len(tokens))
    if starts[0] or not ((starts < answers) & (answers + 1 < stops)).all():
        raise UserError(f"{file} does not fit {META}: {remedy}")
    files, numbers = _files(described.get("files", []), len(index))
    return Examples(tokens, starts, answers, stops, index["line"], index["digest"], files, numbers)


def _files(listed: Any, count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns what meta.json says of several files; folders made earlier do not say it."""
    try:
        files = tuple(str(each["file"]) for each in listed)
        counts = [int(each["documents"]) for each in listed]
        numbers = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    except (TypeError, KeyError, ValueError):
        files, numbers = (), np.empty(0, np.int32)
    # They only name lines for people, so that a wrong list need not end the run.
    return (files, numbers) if len(numbers) == count else ((), np.empty(0, np.int32))


def check_index_sums(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Compares the sha256 of each index with meta.json's.

    Raises:
      UserError: naming one that is missing or damaged.
      StorageError: if a bucket cannot be reached.
    """
    require_folder(path)
    for split in meta["splits"].values():
        file = resolve_path(path) / split["index"]["file"]
        content = read_small_file(file)
        if content is None or hashlib.sha256(content).hexdigest() != split["index"]["sha256"]:
            raise UserError(
                f"{file} is missing or damaged, because its sha256 is not that in {META}: remove "
                "the folder and prepare the data again"
            )


def overlap_warning(name: str, train: Examples, val: Examples) -> str | None:
    """Returns what to say if examples are in both splits, or None if none is."""
    (shared,) = np.nonzero(np.isin(val.digests, train.digests))
    if not len(shared):
        return None
    places = val.places(shared[:_LISTED])
    lines = ", ".join(f"{line:,}" if isinstance(line, int) else line for line in places)
    more = ", ..." if len(shared) > _LISTED else ""
    where = "of validation: " if val.files else "validation lines "
    return (
        f"warning: {len(shared):,} of the {len(val):,} validation examples of {name} are also "
        f"trained on, so that eval/loss is too good: remove one of each pair ({where}{lines}{more})"
    )
