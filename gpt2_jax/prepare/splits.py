"""Turns documents in memory into a folder of token shards whose splits are given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.data.meta import check_sha256
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import local_path, replaceable_folder
from gpt2_jax.prepare import encode
from gpt2_jax.prepare.engines import Engine, open_engine
from gpt2_jax.prepare.prepare import check_free, put_in_place, summarized
from gpt2_jax.prepare.staging import open_staging
from gpt2_jax.prepare.tasks import encode_stream, explained, joined_sha256
from gpt2_jax.prepare.work_items import WORK_ITEM_BYTES, Document, documents_items
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_TOKENS_PER_SHARD = 100_000_000


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
      UserError: if a text cannot be encoded, or `out` holds something else.
      StorageError: if the disk is full.
    """
    began = time.monotonic()
    out = local_path(out, "--out")
    items = {split: [*documents_items(each, WORK_ITEM_BYTES)] for split, each in splits.items()}
    described = json.dumps(tokenizer.to_dict())
    everything = [item for group in items.values() for item in group]
    sums = [encode.digest_item(item, tokenizer=described) for item in everything]
    counts = {split: len(group) for split, group in items.items()}
    source = {"sha256": joined_sha256([*map(str, counts.items()), *sums]), "corpus": corpus}
    meta = check_free(out)
    already_prepared = meta is not None
    if meta is None:
        replaceable_folder(out, "--out")
        with open_engine("processes", workers, None) as engine:
            meta = _make(items, tokenizer, out, source, engine, log)
    elif meta.get("source") != source or meta["tokenizer"] != tokenizer.to_dict():
        raise UserError(
            f"--out {out} already holds other data: choose another --out, or remove the folder"
        )
    else:
        check_sha256(out, meta)
    return summarized(out, meta, already_prepared, time.monotonic() - began)


def _make(
    items: Mapping[str, list[Any]],
    tokenizer: Tokenizer,
    out: Path,
    source: Mapping[str, Any],
    engine: Engine,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Encodes the items, puts the shards in place and returns their meta."""
    everything = [item for group in items.values() for item in group]
    with (
        explained(f"--out {out}", "choose another --out", ""),
        open_staging(out, keep=False) as staging,
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
            "source": dict(source),
        }
        put_in_place(staging, meta, out)
    return meta
