"""Turns documents in memory into a folder of token shards whose splits are given.

As in `prepare`, a run that is killed leaves `out` as it was, and beside it the encoded work items,
from which the next run resumes.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.data.meta import check_sha256
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import local_path, replaceable_folder
from gpt2_jax.prepare import encode
from gpt2_jax.prepare.engines import Engine, open_engine
from gpt2_jax.prepare.prepare import check_free, put_in_place, summarized
from gpt2_jax.prepare.staging import open_staging
from gpt2_jax.prepare.tasks import encode_stream, explained, in_order, joined_sha256
from gpt2_jax.prepare.work_items import (
    WORK_ITEM_BYTES,
    Document,
    DocumentsItem,
    documents_items,
)
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_TOKENS_PER_SHARD = 100_000_000

_Items = Mapping[str, Sequence[DocumentsItem]]  # of each split


def prepare_splits(
    splits: Mapping[str, Iterable[Document]],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    corpus: str,
    workers: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes shards of each split and meta.json, unless `out` already holds exactly them.

    Every document follows the tokenizer's end of text, as in `prepare`.

    Args:
      splits: the documents of "train", "val" and perhaps others.
      tokenizer: encodes them.
      out: the folder to make.
      corpus: what meta.json says that the documents are.
      workers: number of processes that encode.
      log: called with a line of progress.

    Returns:
      What `prepare` returns.

    Raises:
      UserError: if a text cannot be encoded, `out` holds something else or is being prepared by
        another process.
      StorageError: if the disk is full.
    """
    began = time.monotonic()
    out = local_path(out, "--out")
    items = {split: [*documents_items(each, WORK_ITEM_BYTES)] for split, each in splits.items()}
    meta = check_free(out)
    already_prepared = meta is not None
    if not already_prepared:
        replaceable_folder(out, "--out")  # refused before anything is encoded
    with open_engine("processes", workers, None) as engine:
        if meta is None:
            meta = _make(items, tokenizer, out, corpus, engine, log)
        else:
            _check_same(meta, items, tokenizer, out, corpus, engine)
    return summarized(out, meta, already_prepared, time.monotonic() - began)


def _source(items: _Items, sums: Iterable[str], corpus: str) -> dict[str, str]:
    """Returns what meta.json says that the data is from, by the sums of all items."""
    counts = ((split, len(group)) for split, group in items.items())
    return {"sha256": joined_sha256([*map(str, counts), *sums]), "corpus": corpus}


def _check_same(
    meta: Mapping[str, Any],
    items: _Items,
    tokenizer: Tokenizer,
    out: Path,
    corpus: str,
    engine: Engine,
) -> None:
    """Raises UserError unless `out` holds exactly these splits, undamaged."""
    task = functools.partial(encode.digest_item, tokenizer=json.dumps(tokenizer.to_dict()))
    sums = in_order(engine, task, [*itertools.chain(*items.values())])
    same = meta["tokenizer"] == tokenizer.to_dict()
    if not same or meta.get("source") != _source(items, sums, corpus):
        raise UserError(
            f"--out {out} already holds other data: choose another --out, or remove the folder"
        )
    check_sha256(out, meta)


def _make(
    items: _Items,
    tokenizer: Tokenizer,
    out: Path,
    corpus: str,
    engine: Engine,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Encodes the items that are not yet, puts the shards in place and returns their meta."""
    everything = [*itertools.chain(*items.values())]
    several = len(everything) > 1
    kept = "; encoded work items are kept" if several else ""
    with (
        explained(f"--out {out}", "choose another --out", kept),
        open_staging(out, keep=several) as staging,
    ):
        if check_free(out) is not None:  # another run was faster
            raise UserError(
                f"--out {out} was prepared by another process meanwhile: choose another --out"
            )
        totals, stream = encode_stream(
            everything, encode.encode_item, tokenizer, staging, engine, log
        )
        bounds, first, start = {}, 0, 0
        for split, group in items.items():
            stop = start + sum(each.tokens for each in totals[first : first + len(group)])
            bounds[split] = (start, stop)
            first, start = first + len(group), stop
        lengths = tokenizer.byte_lengths()
        meta = {
            "tokenizer": tokenizer.to_dict(),
            "vocab_size": tokenizer.vocab_size,
            "splits": stream.write(staging.shards, engine, bounds, lengths, _TOKENS_PER_SHARD),
            "source": _source(items, [each.sha256 for each in totals], corpus),
        }
        put_in_place(staging, meta, out)
    return meta
