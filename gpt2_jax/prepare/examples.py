"""Turns files of examples into a folder of tokens that training reads.

The folder has what `data.examples` describes. Like that of documents it depends on the files and
the settings alone, and a run that is killed leaves what the next one resumes from.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.config.fields import Fields
from gpt2_jax.data.examples import FORMAT, check_index_sums, held_out, only_one
from gpt2_jax.data.meta import check_sha256
from gpt2_jax.data.shard_file import MAX_VOCAB_SIZE
from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import local_path, replaceable_folder
from gpt2_jax.prepare.bpe import is_trained_name, train_named
from gpt2_jax.prepare.engines import Engine, open_engine
from gpt2_jax.prepare.example_lines import (
    ExamplesItem,
    digest_examples,
    encode_examples,
    read_index,
    texts,
)
from gpt2_jax.prepare.prepare import check_free, put_in_place, summarized
from gpt2_jax.prepare.staging import Staging, open_staging
from gpt2_jax.prepare.stream import TokenStream
from gpt2_jax.prepare.tasks import encode_stream, explained, in_order, joined_sha256
from gpt2_jax.prepare.work_items import WORK_ITEM_BYTES, grouped_slices
from gpt2_jax.tokenizers.tokenizer import FIXED_CHOICES, Tokenizer, make_tokenizer

TOKENS_PER_SHARD = 100_000_000


def prepare_examples(
    files: Mapping[str, Sequence[Path]],
    fields: Fields,
    tokenizer: str | Tokenizer,
    out: str | Path,
    *,
    name: str,
    place: str = "",
    sums: Mapping[str, str] | None = None,
    val_fraction: float = 0.1,
    workers: int = 1,
    work_item_bytes: int = WORK_ITEM_BYTES,
    engine: str = "processes",
    ray_address: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the folder of some examples, unless `out` already holds exactly them.

    Args:
      files: files of JSON lines to train on ("train"), and perhaps those to validate on ("val").
      fields: the fields with prompts and answers.
      tokenizer: a tokenizer with an end of text, or the name of one: "byte", "gpt2" or such as
        "bpe:4096", which is trained on the files to train on.
      out: the folder to make.
      name: what the user calls the files, for messages.
      place: what the user calls the folder, for messages; by default `--out` and its path.
      sums: the sha256 of the file of each path, if the files are written anew by every run: to
        resume, they need not have the same paths and times.
      val_fraction: share of the examples at the end that becomes the val split if no files do; 0
        for none.
      workers, engine, ray_address: see `prepare`.
      work_item_bytes: text of one task.
      log: called with a line of progress every few seconds.

    Returns:
      What `prepare` returns; documents are examples.

    Raises:
      UserError: for a line that is no example, files without at least two examples, a tokenizer
        without an end of text, or if `out` holds something else.
      StorageError: if the disk is full.
    """
    began = time.monotonic()
    out = local_path(out, "--out")
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction:g}")
    settings: dict[str, Any] = {
        "val_fraction": 0.0 if "val" in files else val_fraction,
        "fields": str(fields),
        "corpus": FORMAT,
        "part_bytes": work_item_bytes,
    }
    place = place or f"--out {out}"
    meta = check_free(out)
    already_prepared = meta is not None
    if meta is None:
        replaceable_folder(out, "--out")
    else:
        settings["part_bytes"] = meta.get("source", {}).get("part_bytes", work_item_bytes)
    items = {
        split: [
            ExamplesItem(group, fields, tuple(sums[part.path] for part in group) if sums else ())
            for group in grouped_slices(paths, int(settings["part_bytes"]))
        ]
        for split, paths in files.items()
    }
    for each in (each for group in items.values() for item in group for each in item.slices):
        if each.format != "jsonl":
            raise UserError(f"{each.path} is not named *.jsonl: examples are lines of JSON")
    trained = isinstance(tokenizer, str) and is_trained_name(tokenizer)
    if isinstance(tokenizer, str):
        if trained:
            tokenizer = train_named(tokenizer, texts(items["train"]))
        else:
            tokenizer = fixed_tokenizer(tokenizer, name)
    check_tokenizer(tokenizer, name)
    with open_engine(engine, workers, ray_address) as running:
        if meta is None:
            meta = _make(items, tokenizer, out, name, place, settings, running, log)
        else:
            _check_same(meta, items, tokenizer, out, settings, running, trained)
    return summarized(out, meta, already_prepared, time.monotonic() - began)


def fixed_tokenizer(chosen: str, name: str) -> Tokenizer:
    """Returns the tokenizer of that name for examples, which must have a vocabulary of its own.

    Raises:
      UserError: that begins with `name`, which is what the user calls the examples.
    """
    if chosen == "char":
        raise UserError(
            f"{name}: the char tokenizer has no end of text, with which an answer ends: use byte, "
            "gpt2, one trained by prepare --tokenizer bpe:N, or the tokenizer of a model"
        )
    if chosen not in FIXED_CHOICES:
        raise UserError(
            f"{name}: data.tokenizer={chosen} comes with a model: name the model with "
            "--config.train.init_from=M"
        )
    return make_tokenizer(chosen)


def check_tokenizer(tokenizer: Tokenizer, name: str) -> None:
    """Raises UserError unless answers can end with the tokenizer, and its ids be stored."""
    if tokenizer.eot is None:
        raise UserError(
            f"{name}: the {tokenizer.name} tokenizer has no end of text, with which an answer ends:"
            " use byte, gpt2 or the tokenizer of a model that has one"
        )
    if tokenizer.vocab_size > MAX_VOCAB_SIZE:
        raise UserError(
            f"{name}: tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, but must have "
            f"at most {MAX_VOCAB_SIZE} to be stored: use byte or gpt2"
        )


def _check_same(
    meta: Mapping[str, Any],
    items: Mapping[str, Sequence[ExamplesItem]],
    tokenizer: Tokenizer,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine,
    trained: bool,
) -> None:
    """Raises UserError unless `out` holds exactly the requested examples, undamaged.

    `trained` says that the tokenizer depends on the examples.
    """
    existing = {**meta.get("source", {}), "tokenizer": meta["tokenizer"]}
    requested = {"tokenizer": tokenizer.to_dict(), **settings}
    differing = [key for key, value in requested.items() if existing.get(key) != value]
    if not differing:
        sums = in_order(
            engine, digest_examples, [each for group in items.values() for each in group]
        )
        if joined_sha256([*items, *sums]) != existing.get("sha256"):
            differing = ["text"]
    elif trained and meta["tokenizer"]["name"] == "bpe":
        differing = [key if key != "tokenizer" else "text or bpe:N" for key in differing]
    if differing:
        raise UserError(
            f"--out {out} already holds other data (not the same {', '.join(differing)}): choose "
            "another --out, or remove the folder"
        )
    check_sha256(out, meta)
    check_index_sums(out, meta)


def _make(
    items: Mapping[str, Sequence[ExamplesItem]],
    tokenizer: Tokenizer,
    out: Path,
    name: str,
    place: str,
    settings: Mapping[str, Any],
    engine: Engine,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Encodes the items, puts the folder in place and returns its meta."""
    several = sum(map(len, items.values())) > 1
    kept = "; encoded work items are kept" if several else ""
    with explained(place, "choose another place", kept), open_staging(out, several) as staging:
        if check_free(out) is not None:  # another run was faster
            raise UserError(f"{place} was prepared by another process meanwhile: choose another")
        everything = list(itertools.chain(*items.values()))
        totals, stream = encode_stream(everything, encode_examples, tokenizer, staging, engine, log)
        index, files = _joined_index(stream)
        count = sum(each.documents for each in totals[: len(items["train"])])
        bounds = _bounds(count, len(index), name, settings["val_fraction"], "val" in items)
        at = [*index["start"].tolist(), len(stream)]
        splits = stream.write(
            staging.shards,
            engine,
            {split: (at[first], at[last]) for split, (first, last) in bounds.items()},
            tokenizer.byte_lengths(),
            TOKENS_PER_SHARD,
        )
        for split, (first, last) in bounds.items():
            splits[split] |= _write_index(staging, split, index[first:last], at[last])
            splits[split] |= _described(files, first, last)
        meta = {
            "format": FORMAT,
            "tokenizer": tokenizer.to_dict(),
            "vocab_size": tokenizer.vocab_size,
            "splits": splits,
            "source": {
                "sha256": joined_sha256([*items, *(each.sha256 for each in totals)]),
                **settings,
            },
        }
        put_in_place(staging, meta, out)
    return meta


def _joined_index(stream: TokenStream) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Returns the records of all examples, counted in the whole stream and in whole files.

    With them come the files and how many examples each has, in their order.
    """
    parts = []
    files: list[tuple[str, int]] = []
    base = 0
    for key, start in zip(stream.keys, stream.starts[:-1].tolist(), strict=True):
        index, slices = read_index(stream.folder, key)
        first = 0
        for each in slices:
            base = 0 if each.begins_file else base
            before = 0 if each.begins_file else files.pop()[1]
            files.append((each.path, before + each.examples))
            index["line"][first : first + each.examples] += base
            first, base = first + each.examples, base + each.lines
        index["start"] += start
        index["answer"] += start
        parts.append(index)
    return np.concatenate(parts), files


def _described(files: Sequence[tuple[str, int]], first: int, last: int) -> dict[str, Any]:
    """Returns what meta says of the files that examples first .. last-1 are from, if several.

    Files are named from the folder that all of them are in, so that meta tells no place.
    """
    found, start = [], 0
    paths = [os.path.abspath(name) for name, _ in files]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    for path, (_, count) in zip(paths, files, strict=True):
        inside = min(start + count, last) - max(start, first)
        if inside > 0:
            found.append({"file": os.path.relpath(path, root), "documents": inside})
        start += count
    return {"files": found} if len(found) > 1 else {}


def _bounds(
    train: int, total: int, name: str, val_fraction: float, has_val: bool
) -> dict[str, tuple[int, int]]:
    """Returns the first example of each split, and that after its last.

    Args:
      train: how many of the examples are from the files of the train split.
      total: how many there are.
      name: what the user calls the files.
      val_fraction: share to hold out.
      has_val: whether there are files of the val split.

    Raises:
      UserError: if there are too few examples.
    """
    if not train:
        raise UserError(
            f"{name} has no examples: each line must be a JSON object such as "
            '{"prompt": "1 + 1 = ", "answer": "2"}'
        )
    if has_val:
        if train == total:
            raise UserError(f"{name}: val.jsonl has no examples: fill it, or remove it")
        return {"train": (0, train), "val": (train, total)}
    if total < 2:
        raise UserError(only_one(name))
    if not val_fraction:
        return {"train": (0, total)}
    cut = total - held_out(total, val_fraction)
    return {"train": (0, cut), "val": (cut, total)}


def _write_index(staging: Staging, split: str, records: np.ndarray, stop: int) -> dict[str, Any]:
    """Writes the index of a split, whose last example ends at `stop`; returns what meta says."""
    records = records.copy()
    answer_tokens = int(np.append(records["start"][1:], stop).sum() - records["answer"].sum())
    records["answer"] -= records["start"][0]
    records["start"] -= records["start"][0].copy()
    buffer = io.BytesIO()
    np.save(buffer, records, allow_pickle=False)
    content = buffer.getvalue()
    file = f"{split}_examples.npy"
    write_file(staging.shards / file, content)
    described = {"file": file, "sha256": hashlib.sha256(content).hexdigest()}
    return {"answer_tokens": answer_tokens, "index": described}
