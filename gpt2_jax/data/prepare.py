"""A corpus to a folder of token shards: encoded in parallel, put in place in one step.

The result depends on the documents and the settings alone, never on the number of workers. It is
built in a hidden folder beside `out` and renamed at the end: a run that was killed leaves `out` as
it was.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt2_jax.data.corpora import Corpus, Document
from gpt2_jax.data.encode import encode_documents
from gpt2_jax.data.meta import check_sha256, read_meta, write_meta
from gpt2_jax.data.shards import MAX_VOCAB_SIZE, TOKEN_DTYPE, ShardWriter
from gpt2_jax.data.tokenizer import Tokenizer, make_tokenizer
from gpt2_jax.errors import UserError

# Tokens moved at a time when the stream is cut into shards.
_COPY_TOKENS = 1 << 22
_LOG_SECONDS = 5.0


def prepare(
    documents: Iterable[Document],
    tokenizer_name: str,
    out: str | Path,
    *,
    val_fraction: float = 0.1,
    workers: int = 1,
    tokens_per_shard: int = 100_000_000,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the shards and meta.json of a corpus, unless `out` already holds exactly them.

    The stream is every document in order, each with the tokenizer's end of text before it (as
    llm.c does); empty documents are left out. Train is its first int(n * (1 - val_fraction))
    tokens, val the rest.

    Args:
      documents: a Corpus or a list; it may be iterated twice.
      tokenizer_name: "gpt2", "byte" or "char"; char knows the characters that occur.
      out: the folder to make.
      val_fraction: from 0 (no val shards) to less than 1.
      workers: processes that encode. Only gpt2 uses more than one: the others take longer to send.
      tokens_per_shard: size of all files but each split's last.
      log: called with a line of progress every few seconds.

    Returns:
      {"out", "tokenizer", "vocab_size", "splits": {"train": {"tokens", "bytes" (of text),
      "documents"}, "val": ...}, "already_prepared", "seconds"}.

    Raises:
      UserError: for settings out of range, text that cannot be encoded, an empty corpus, or an
        `out` that holds something else.
    """
    began = time.monotonic()
    out = Path(out)
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction:g}")
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    settings = {"val_fraction": val_fraction, "tokens_per_shard": tokens_per_shard}
    if isinstance(documents, Corpus):
        settings["corpus"] = documents.name
    meta = _already_there(documents, tokenizer_name, out, settings)
    already_prepared = meta is not None
    if meta is None:
        tokenizer = _tokenizer_for(tokenizer_name, documents)
        with _staging(out) as folder:
            stream = _Stream(folder / "stream.tmp", tokenizer)
            stream.write_all(documents, workers, log)
            splits = _cut(stream, folder, val_fraction, tokens_per_shard)
            meta = {
                "tokenizer": tokenizer.to_dict(),
                "vocab_size": tokenizer.vocab_size,
                "splits": splits,
                "source": {"sha256": stream.digest.hexdigest(), **settings},
            }
            write_meta(folder, meta)
            stream.path.unlink()
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


def _nonempty(documents: Iterable[Document]) -> Iterator[Document]:
    return (document for document in documents if document.text)


def _update(digest: Any, text: str) -> None:
    """Adds one document to a digest of the corpus; its length keeps borders part of the content."""
    content = text.encode("utf-8", "surrogatepass")
    digest.update(len(content).to_bytes(8, "little") + content)


def _already_there(
    documents: Iterable[Document], tokenizer_name: str, out: Path, settings: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The meta of an `out` that holds what is asked for; None when `out` is absent or empty."""
    if out.is_dir() and not any(out.iterdir()):
        return None
    if not out.exists():
        return None
    if not out.is_dir() or (meta := read_meta(out)) is None:
        raise UserError(f"--out {out} is there and is no prepared data: choose another --out")
    digest = hashlib.sha256()
    for document in _nonempty(documents):
        _update(digest, document.text)
    asked = {"text": digest.hexdigest(), "tokenizer": tokenizer_name, **settings}
    source = meta.get("source", {})
    there = {**source, "text": source.get("sha256"), "tokenizer": meta["tokenizer"].get("name")}
    if differing := [name for name, value in asked.items() if there.get(name) != value]:
        raise UserError(
            f"--out {out} already holds other data (not the same {', '.join(differing)}): choose "
            "another --out, or remove it"
        )
    check_sha256(out, meta)
    return meta


def _tokenizer_for(name: str, documents: Iterable[Document]) -> Tokenizer:
    characters = None
    if name == "char":
        characters = "".join(sorted(set().union(*(set(document.text) for document in documents))))
        if not characters:
            raise UserError("the corpus has no text: give at least one file that is not empty")
    tokenizer = make_tokenizer(name, characters)
    if tokenizer.vocab_size > MAX_VOCAB_SIZE:
        raise UserError(
            f"tokenizer {name} would know {tokenizer.vocab_size} tokens, but a shard stores at "
            f"most {MAX_VOCAB_SIZE}: use --tokenizer byte or gpt2"
        )
    return tokenizer


class _Stream:
    """The whole corpus as tokens in one file: where to cut it is known only once it is whole."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self.digest = hashlib.sha256()
        self.starts = array.array("q")  # First token of each document.
        self.length = 0

    def write_all(
        self, documents: Iterable[Document], workers: int, log: Callable[[str], None]
    ) -> None:
        """Encodes every document that is not empty, in order."""
        before = [] if self.tokenizer.eot is None else [self.tokenizer.eot]
        separator = np.array(before, TOKEN_DTYPE)
        began = last = time.monotonic()
        with open(self.path, "wb") as file:
            for tokens in encode_documents(self._digested(documents), self.tokenizer, workers):
                self.starts.append(self.length)
                self._append(file, separator)
                self._append(file, tokens)
                if (now := time.monotonic()) - last > _LOG_SECONDS:
                    last, rate = now, self.length / (now - began)
                    log(f"{len(self.starts)} documents, {self.length} tokens ({rate:.0f}/s)")
        if not self.starts:
            raise UserError("the corpus has no text: give at least one file that is not empty")

    def _digested(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in _nonempty(documents):
            _update(self.digest, document.text)
            yield document

    def _append(self, file: IO[bytes], tokens: np.ndarray) -> None:
        file.write(tokens.astype(TOKEN_DTYPE, copy=False).tobytes())
        self.length += len(tokens)


def _cut(
    stream: _Stream, folder: Path, val_fraction: float, tokens_per_shard: int
) -> dict[str, Any]:
    """Copies the stream into the shards of train and val; returns meta.json's `splits`."""
    cut = int(stream.length * (1 - val_fraction))
    bounds = {"train": (0, cut)}
    if val_fraction:
        bounds["val"] = (cut, stream.length)
    for split, (start, stop) in bounds.items():
        if start == stop:
            raise UserError(
                f"val_fraction={val_fraction:g} leaves no {split} tokens of the corpus's "
                f"{stream.length}: choose another, or give more text"
            )
    lengths = stream.tokenizer.byte_lengths()
    tokens = np.memmap(stream.path, TOKEN_DTYPE, "r")
    splits: dict[str, Any] = {}
    for split, (start, stop) in bounds.items():
        size = 0
        with ShardWriter(folder, split, tokens_per_shard) as writer:
            for begin in range(start, stop, _COPY_TOKENS):
                piece = tokens[begin : min(begin + _COPY_TOKENS, stop)]
                size += int(lengths[piece].sum(dtype=np.int64))
                writer.write(piece)
        splits[split] = {
            "tokens": stop - start,
            "bytes": size,
            # A document that the cut divides counts where it begins.
            "documents": sum(start <= first < stop for first in stream.starts),
            "shards": writer.shards,
        }
    return splits


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name if the block ends well, else goes away."""
    host = socket.gethostname()
    prefix = f".{out.name}.preparing-{host}-"
    folder = out.parent / f"{prefix}{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # What killed runs left; a folder of another host or of a live process is in use.
        for stale in out.parent.glob(f"{prefix}*"):
            if not _is_running(stale.name.removeprefix(prefix)):
                shutil.rmtree(stale, ignore_errors=True)
        folder.mkdir()
        yield folder
        os.replace(folder, out)
    except OSError as error:
        raise UserError(
            f"cannot write --out {out} ({error.strerror}): choose another, or make room"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True
