"""Turns a corpus into a folder of token shards.

Tasks encode the work items, the tokens are joined into shards, and the folder is put in place in
one step. The result depends on the text and the settings alone, never on what runs the tasks. A run
that is killed leaves `out` as it was, and beside it the encoded work items, from which the next run
resumes.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.data.meta import check_sha256, read_meta, write_meta
from gpt2_jax.data.shard_file import MAX_VOCAB_SIZE
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import local_path, replaceable_folder
from gpt2_jax.prepare import encode
from gpt2_jax.prepare.bpe import is_trained_name, train_named, vocabulary_size
from gpt2_jax.prepare.corpora import Corpus, documents_corpus
from gpt2_jax.prepare.engines import Engine, open_engine
from gpt2_jax.prepare.staging import Staging, open_staging
from gpt2_jax.prepare.tasks import encode_stream, explained, in_order, joined_sha256
from gpt2_jax.prepare.work_items import WORK_ITEM_BYTES, Document, WorkItem
from gpt2_jax.tokenizers.tokenizer import Tokenizer, make_tokenizer, needs_characters

# The name in meta.json, by which data that was prepared earlier is recognized.
_ITEM_BYTES_KEY = "part_bytes"
_TRAINED_KEY = "trained"
_SKIPPED_KEY = "skipped_rows"
_NO_TEXT = "the corpus has no text: give at least one file that is not empty"


def prepare(
    documents: Corpus | Iterable[Document],
    tokenizer: str | Tokenizer,
    out: str | Path,
    *,
    val_fraction: float = 0.1,
    workers: int = 1,
    tokens_per_shard: int = 100_000_000,
    work_item_bytes: int = WORK_ITEM_BYTES,
    engine: str = "processes",
    ray_address: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the shards and meta.json of a corpus, unless `out` already holds exactly them.

    The stream has every document in order, each after the tokenizer's end of text (as in llm.c);
    empty documents are left out. The train split is its first int(n * (1 - val_fraction)) tokens,
    the val split is the rest.

    Args:
      documents: a Corpus, or documents.
      tokenizer: the tokenizer of a model, one of `tokenizer.PREPARE_CHOICES`, of which char knows
        the characters that occur, or a name such as "bpe:4096": see `bpe.train_bpe`.
      out: the folder to make.
      val_fraction: from 0 (no val shards) to less than 1.
      workers: number of processes that encode.
      tokens_per_shard: tokens in every file but the last of each split.
      work_item_bytes: text of one task; affects only where the corpus is cut for its sum.
      engine: "processes" or "ray"; see `engines.open_engine`.
      ray_address: address of a Ray cluster.
      log: called with a line of progress every few seconds.

    Returns:
      {"out", "tokenizer", "vocab_size", "splits": {"train": {"tokens", "bytes" (of text),
      "documents"}, "val": ...}, "skipped_rows", "already_prepared", "seconds"}.

    Raises:
      UserError: if a setting is out of range, a text cannot be encoded, the corpus is empty, `out`
        holds something else or is being prepared by another process.
      StorageError: if the disk is full.
    """
    began = time.monotonic()
    out = local_path(out, "--out")
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction:g}")
    trained = tokenizer if isinstance(tokenizer, str) and is_trained_name(tokenizer) else None
    if trained is not None:
        vocabulary_size(trained)  # refused before anything is read
    if tokens_per_shard < 1:
        raise UserError(f"tokens_per_shard must be at least 1, not {tokens_per_shard}")
    corpus = documents if isinstance(documents, Corpus) else documents_corpus(documents)
    settings = {
        "val_fraction": val_fraction,
        "tokens_per_shard": tokens_per_shard,
        "corpus": corpus.name,
    }
    if trained is not None:
        settings[_TRAINED_KEY] = trained
    meta = check_free(out)
    already_prepared = meta is not None
    if not already_prepared:
        replaceable_folder(out, "--out")  # refused before anything is encoded
    with open_engine(engine, workers, ray_address) as running:
        if meta is None:
            items = list(corpus.work_items(work_item_bytes))
            settings[_ITEM_BYTES_KEY] = work_item_bytes
            meta = _make(items, tokenizer, out, settings, running, log)
        else:
            _check_same(meta, corpus, tokenizer, out, settings, running)
    return summarized(out, meta, already_prepared, time.monotonic() - began)


def summarized(
    out: Path, meta: Mapping[str, Any], already_prepared: bool, seconds: float
) -> dict[str, Any]:
    """Returns what `prepare` returns of a folder with this meta.json."""
    kept = ("tokens", "bytes", "documents")
    return {
        "out": str(out),
        "tokenizer": meta["tokenizer"]["name"],
        "vocab_size": meta["vocab_size"],
        "splits": {
            name: {key: split[key] for key in kept} for name, split in meta["splits"].items()
        },
        "skipped_rows": meta.get("source", {}).get(_SKIPPED_KEY, 0),
        "already_prepared": already_prepared,
        "seconds": round(seconds, 2),
    }


def check_free(out: Path) -> dict[str, Any] | None:
    """Returns the meta of prepared data in `out`, or None if `out` is missing or empty.

    Raises:
      UserError: if `out` is anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or (meta := read_meta(out)) is None:
        raise UserError(f"--out {out} exists and is not prepared data: choose another --out")
    return meta


def _check_same(
    meta: Mapping[str, Any],
    corpus: Corpus,
    tokenizer: str | Tokenizer,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine,
) -> None:
    """Raises UserError unless `out` holds exactly the requested data, undamaged.

    All workers read and sum the text again, because the times of files do not survive a copy.
    """
    source = meta.get("source", {})
    by_name = isinstance(tokenizer, str)
    existing = {
        **source,
        "tokenizer": meta["tokenizer"].get("name") if by_name else meta["tokenizer"],
    }
    requested = {"tokenizer": tokenizer if by_name else tokenizer.to_dict(), **settings}
    if _TRAINED_KEY in settings:  # the same text and size give the same tokenizer
        del requested["tokenizer"]
    differing = [name for name, value in requested.items() if existing.get(name) != value]
    if not differing:
        items = list(corpus.work_items(source.get(_ITEM_BYTES_KEY, WORK_ITEM_BYTES)))
        task = functools.partial(encode.digest_item, tokenizer=json.dumps(meta["tokenizer"]))
        if joined_sha256(in_order(engine, task, items)) != source.get("sha256"):
            differing = ["text"]
    if differing:
        raise UserError(
            f"--out {out} already holds other data (not the same {', '.join(differing)}): choose "
            "another --out, or remove the folder"
        )
    check_sha256(out, meta)


def _make(
    items: Sequence[WorkItem],
    chosen: str | Tokenizer,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Encodes the work items, puts the shards in place and returns their meta."""
    several = len(items) > 1
    kept = "; encoded work items are kept" if several else ""
    with (
        explained(f"--out {out}", "choose another --out", kept),
        open_staging(out, keep=several) as staging,
    ):
        if check_free(out) is not None:  # another run was faster
            raise UserError(
                f"--out {out} was prepared by another process meanwhile: choose another --out"
            )
        tokenizer = tokenizer_for(chosen, items, engine)
        totals, stream = encode_stream(items, encode.encode_item, tokenizer, staging, engine, log)
        skipped = sum(each.skipped for each in totals)
        if not any(each.tokens for each in totals):
            invalid = f"; all of its {skipped:,} rows were invalid" if skipped else ""
            raise UserError(f"{_NO_TEXT}{invalid}")
        meta = {
            "tokenizer": tokenizer.to_dict(),
            "vocab_size": tokenizer.vocab_size,
            "splits": stream.cut(
                staging.shards,
                engine,
                byte_lengths=tokenizer.byte_lengths(),
                val_fraction=settings["val_fraction"],
                tokens_per_shard=settings["tokens_per_shard"],
            ),
            "source": {
                "sha256": joined_sha256([each.sha256 for each in totals]),
                **settings,
                **({_SKIPPED_KEY: skipped} if any(each.skip_invalid for each in items) else {}),
            },
        }
        put_in_place(staging, meta, out)
    return meta


def put_in_place(staging: Staging, meta: Mapping[str, Any], out: Path) -> None:
    """Makes the finished shards, with their meta.json, the folder `out`, in one step.

    Raises:
      UserError: if no folder can be moved there.
      OSError: if it cannot be written.
    """
    write_meta(staging.shards, meta)
    os.replace(staging.shards, replaceable_folder(out, "--out"))


def tokenizer_for(chosen: str | Tokenizer, items: Sequence[WorkItem], engine: Engine) -> Tokenizer:
    """Returns the tokenizer; if only named, it may depend on the corpus."""
    if isinstance(chosen, str) and is_trained_name(chosen):
        return train_named(chosen, encode.texts(items))
    characters = None
    if isinstance(chosen, str) and needs_characters(chosen):
        of_items = in_order(engine, encode.characters_of_item, items)
        characters = "".join(sorted(set().union(*of_items)))
        if not characters:
            raise UserError(_NO_TEXT)
    tokenizer = make_tokenizer(chosen, characters) if isinstance(chosen, str) else chosen
    if tokenizer.vocab_size > MAX_VOCAB_SIZE:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, but must have at most "
            f"{MAX_VOCAB_SIZE} to be stored in shards: use --tokenizer byte or gpt2"
        )
    return tokenizer
