"""A corpus to a folder of token shards: parts encoded by tasks, joined, put in place in one step.

The result depends on the text and the settings alone, never on who runs the tasks. A run that was
killed leaves `out` as it was, and beside it the parts that were done, which the next run takes up.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.data.meta import check_sha256, read_meta, write_meta
from gpt2_jax.data.shard_file import MAX_VOCAB_SIZE
from gpt2_jax.errors import Terminated, UserError
from gpt2_jax.prepare import encode
from gpt2_jax.prepare.corpora import Corpus, documents_corpus
from gpt2_jax.prepare.encode import PartTotals
from gpt2_jax.prepare.engines import Engine, open_engine
from gpt2_jax.prepare.staging import Staging, open_staging
from gpt2_jax.prepare.stream import TokenStream
from gpt2_jax.prepare.work_items import PART_BYTES, Document, Part, key
from gpt2_jax.tokenizers.tokenizer import Tokenizer, make_tokenizer

_LOG_SECONDS = 5.0
_NO_TEXT = "the corpus has no text: give at least one file that is not empty"


def prepare(
    documents: Corpus | Iterable[Document],
    tokenizer_name: str,
    out: str | Path,
    *,
    val_fraction: float = 0.1,
    workers: int = 1,
    tokens_per_shard: int = 100_000_000,
    part_bytes: int = PART_BYTES,
    engine: str = "processes",
    ray_address: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the shards and meta.json of a corpus, unless `out` already holds exactly them.

    The stream is every document in order, each with the tokenizer's end of text before it (as
    llm.c does); empty documents are left out. Train is its first int(n * (1 - val_fraction))
    tokens, val the rest.

    Args:
      documents: a Corpus, or texts.
      tokenizer_name: "gpt2", "byte" or "char"; char knows the characters that occur.
      out: the folder to make.
      val_fraction: from 0 (no val shards) to less than 1.
      workers: processes that encode.
      tokens_per_shard: size of all files but each split's last.
      part_bytes: text of one task; it decides where the corpus is cut for its sum, nothing else.
      engine: "processes" or "ray"; see `engines.open_engine`.
      ray_address: of a Ray cluster.
      log: called with a line of progress every few seconds.

    Returns:
      {"out", "tokenizer", "vocab_size", "splits": {"train": {"tokens", "bytes" (of text),
      "documents"}, "val": ...}, "already_prepared", "seconds"}.

    Raises:
      UserError: for settings out of range, text that cannot be encoded, an empty corpus, an `out`
        that holds something else or another process prepares, or a full disk.
    """
    began = time.monotonic()
    if "://" in str(out):
        raise UserError(
            f"--out {out}: prepare writes to disks; prepare into a folder and copy that, as with "
            "gcloud storage cp -r"
        )
    out = Path(out)
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction:g}")
    if tokens_per_shard < 1:
        raise UserError(f"tokens_per_shard must be at least 1, not {tokens_per_shard}")
    corpus = documents if isinstance(documents, Corpus) else documents_corpus(documents)
    settings = {
        "val_fraction": val_fraction,
        "tokens_per_shard": tokens_per_shard,
        "corpus": corpus.name,
    }
    meta = _check_free(out)
    already_prepared = meta is not None
    with open_engine(engine, workers, ray_address) as running:
        if meta is None:
            parts = list(corpus.parts(part_bytes))
            settings["part_bytes"] = part_bytes
            meta = _make(parts, tokenizer_name, out, settings, running, log)
        else:
            _check_same(meta, corpus, tokenizer_name, out, settings, running)
    return _summary(out, meta, already_prepared, time.monotonic() - began)


def _summary(
    out: Path, meta: Mapping[str, Any], already_prepared: bool, seconds: float
) -> dict[str, Any]:
    kept = ("tokens", "bytes", "documents")
    return {
        "out": str(out),
        "tokenizer": meta["tokenizer"]["name"],
        "vocab_size": meta["vocab_size"],
        "splits": {
            name: {key: split[key] for key in kept} for name, split in meta["splits"].items()
        },
        "already_prepared": already_prepared,
        "seconds": round(seconds, 2),
    }


def _check_free(out: Path) -> dict[str, Any] | None:
    """The meta of the prepared data in `out`, None for none; UserError for anything else there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or (meta := read_meta(out)) is None:
        raise UserError(f"--out {out} is there and is no prepared data: choose another --out")
    return meta


def _check_same(
    meta: Mapping[str, Any],
    corpus: Corpus,
    tokenizer_name: str,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine,
) -> None:
    """Refuses an `out` that does not hold what is asked for, whole.

    The text is read and summed again, by all workers: times of files do not survive a copy.
    """
    source = meta.get("source", {})
    there = {**source, "tokenizer": meta["tokenizer"].get("name")}
    asked = {"tokenizer": tokenizer_name, **settings}
    differing = [name for name, value in asked.items() if there.get(name) != value]
    if not differing:
        parts = list(corpus.parts(source.get("part_bytes", PART_BYTES)))
        task = functools.partial(encode.digest_part, tokenizer=json.dumps(meta["tokenizer"]))
        if _joined_sha256(_in_order(engine, task, parts)) != source.get("sha256"):
            differing = ["text"]
    if differing:
        raise UserError(
            f"--out {out} already holds other data (not the same {', '.join(differing)}): choose "
            "another --out, or remove it"
        )
    check_sha256(out, meta)


def _make(
    parts: Sequence[Part],
    tokenizer_name: str,
    out: Path,
    settings: Mapping[str, Any],
    engine: Engine,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Encodes the parts and puts the shards in place; returns their meta."""
    try:
        with open_staging(out, keep=len(parts) > 1) as staging:
            if _check_free(out) is not None:  # another run has been faster
                raise UserError(f"--out {out} was prepared meanwhile: choose another --out")
            tokenizer = _tokenizer_for(tokenizer_name, parts, engine)
            described = json.dumps(tokenizer.to_dict())
            totals = _encode(parts, described, staging, engine, log)
            if not any(part.tokens for part in totals):
                raise UserError(_NO_TEXT)
            stream = TokenStream([key(part, described) for part in parts], totals, staging.parts)
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
                "source": {"sha256": _joined_sha256([each.sha256 for each in totals]), **settings},
            }
            write_meta(staging.shards, meta)
            os.replace(staging.shards, out)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = (
            "make room and run the same command again: parts that are done are kept"
            if full
            else "choose another"
        )
        raise UserError(f"cannot write --out {out} ({error.strerror}): {remedy}") from None
    except (KeyboardInterrupt, Terminated) as told:
        raise type(told)(
            "parts that are done are kept; run the same command again to go on"
        ) from None
    return meta


def _tokenizer_for(name: str, parts: Sequence[Part], engine: Engine) -> Tokenizer:
    characters = None
    if name == "char":
        found = _in_order(engine, encode.characters_of_part, parts)
        characters = "".join(sorted(set().union(*found)))
        if not characters:
            raise UserError(_NO_TEXT)
    tokenizer = make_tokenizer(name, characters)
    if tokenizer.vocab_size > MAX_VOCAB_SIZE:
        raise UserError(
            f"tokenizer {name} would know {tokenizer.vocab_size} tokens, but a shard stores at "
            f"most {MAX_VOCAB_SIZE}: use --tokenizer byte or gpt2"
        )
    return tokenizer


def _encode(
    parts: Sequence[Part],
    tokenizer: str,
    staging: Staging,
    engine: Engine,
    log: Callable[[str], None],
) -> list[PartTotals]:
    """The totals of all parts, in order, once their tokens lie in the staging folder."""
    totals = [encode.read_totals(staging.parts, key(part, tokenizer)) for part in parts]
    missing = [i for i, found in enumerate(totals) if found is None]
    if len(missing) < len(parts):
        done = len(parts) - len(missing)
        log(f"taking up {done} of {len(parts)} parts from the run before")
    task = functools.partial(encode.encode_part, tokenizer=tokenizer, folder=str(staging.parts))
    began = last = time.monotonic()
    tokens = 0
    for count, (i, result) in enumerate(engine.map(task, [parts[i] for i in missing]), 1):
        totals[missing[i]] = result
        tokens += result.tokens
        if (now := time.monotonic()) - last > _LOG_SECONDS:
            last, rate = now, tokens / (now - began)
            done = len(parts) - len(missing) + count
            log(f"{done} of {len(parts)} parts, {tokens:,} tokens ({rate:,.0f}/s)")
    return [found for found in totals if found is not None]


def _in_order(engine: Engine, task: Callable[[Part], str], parts: Sequence[Part]) -> list[str]:
    results = dict(engine.map(task, parts))
    return [results[i] for i in range(len(parts))]


def _joined_sha256(sums: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
