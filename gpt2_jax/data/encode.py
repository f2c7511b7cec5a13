"""Documents to tokens, in order, by one process or several."""

from __future__ import annotations

import collections
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from gpt2_jax.data.corpora import Document
from gpt2_jax.data.tokenizer import Tokenizer, tokenizer_from_dict
from gpt2_jax.errors import UserError

# Characters sent to a worker at a time: enough to hide the cost of sending, yet easy to share out.
_CHUNK_CHARACTERS = 1 << 18


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, workers: int
) -> Iterator[np.ndarray]:
    """The tokens of each document, uint16 [T], in order, whatever the number of workers.

    Args:
      documents: read as they are needed.
      tokenizer: the one to use; only gpt2 goes to other processes, the rest is faster than sending.
      workers: processes, at least 1.

    Raises:
      UserError: naming the document that cannot be encoded, or when a worker process dies.
    """
    if workers == 1 or tokenizer.name != "gpt2":
        for document in documents:
            yield _encode_one(tokenizer, document)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(tokenizer.to_dict(),),
    )
    try:
        # Only a few chunks are under way, so that memory does not grow with the corpus.
        pending: collections.deque[Future[list[np.ndarray]]] = collections.deque()
        for chunk in _chunks(documents):
            pending.append(pool.submit(_encode_chunk, chunk))
            if len(pending) > 3 * workers:
                yield from pending.popleft().result()
        for future in pending:
            yield from future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for lack of memory: try fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Consecutive documents in lists of about `_CHUNK_CHARACTERS`; no document is divided."""
    chunk: list[Document] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document.text)
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _encode_one(tokenizer: Tokenizer, document: Document) -> np.ndarray:
    try:
        return tokenizer.encode_array(document.text)
    except UserError as error:
        raise UserError(f"{document.name}: {error}") from None


_worker_tokenizer: list[Tokenizer] = []


def _start_worker(tokenizer: Mapping[str, Any]) -> None:
    _worker_tokenizer[:] = [tokenizer_from_dict(tokenizer)]


def _encode_chunk(chunk: list[Document]) -> list[np.ndarray]:
    return [_encode_one(_worker_tokenizer[0], document) for document in chunk]
