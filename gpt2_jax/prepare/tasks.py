"""Runs the tasks of work items and collects their results, in the order of the items."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from gpt2_jax.errors import StorageError, Terminated, UserError
from gpt2_jax.files.disk_full import is_disk_full
from gpt2_jax.prepare.encode import ItemTotals, read_totals
from gpt2_jax.prepare.engines import Engine
from gpt2_jax.prepare.staging import Staging
from gpt2_jax.prepare.stream import TokenStream
from gpt2_jax.prepare.work_items import item_key
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_LOG_SECONDS = 5.0

T = TypeVar("T")


def encode_stream(
    items: Sequence[Any],
    encode_item: Callable[..., ItemTotals],
    tokenizer: Tokenizer,
    staging: Staging,
    engine: Engine,
    log: Callable[[str], None],
) -> tuple[list[ItemTotals], TokenStream]:
    """Encodes the items that are not yet; returns the totals and the tokens of all, in order.

    Args:
      items: all items.
      encode_item: encodes an item into a folder, as `encode.encode_item` does.
      tokenizer: encodes them.
      staging, engine, log: see `encode_all`.
    """
    described = json.dumps(tokenizer.to_dict())
    keys = [item_key(item, described) for item in items]
    task = functools.partial(encode_item, tokenizer=described, folder=str(staging.encoded))
    totals = encode_all(task, items, keys, staging, engine, log)
    return totals, TokenStream(keys, totals, staging.encoded)


def encode_all(
    task: Callable[[T], ItemTotals],
    items: Sequence[T],
    keys: Sequence[str],
    staging: Staging,
    engine: Engine,
    log: Callable[[str], None],
) -> list[ItemTotals]:
    """Encodes the items that are not yet, and returns the totals of all.

    Args:
      task: encodes an item into the staging folder.
      items: all items.
      keys: the name of the files that the task writes for each.
      staging: the folder.
      engine: runs the tasks.
      log: called with a line of progress every few seconds.
    """
    totals = [read_totals(staging.encoded, key) for key in keys]
    missing = [i for i, each in enumerate(totals) if each is None]
    if len(missing) < len(items):
        done = len(items) - len(missing)
        log(f"resuming: {done} of {len(items)} work items are already encoded")
    began = last = time.monotonic()
    tokens = 0
    for count, (i, result) in enumerate(engine.map(task, [items[i] for i in missing]), 1):
        totals[missing[i]] = result
        tokens += result.tokens
        if (now := time.monotonic()) - last > _LOG_SECONDS:
            last, rate = now, tokens / (now - began)
            done = len(items) - len(missing) + count
            log(f"{done} of {len(items)} work items, {tokens:,} tokens ({rate:,.0f}/s)")
    return [each for each in totals if each is not None]


def in_order(engine: Engine, task: Callable[[T], str], items: Sequence[T]) -> list[str]:
    """Runs a task for every item and returns the results in the order of the items."""
    results = dict(engine.map(task, items))
    return [results[i] for i in range(len(items))]


def joined_sha256(sums: Iterable[str]) -> str:
    """Returns the sum of sums."""
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


@contextlib.contextmanager
def explained(place: str, remedy: str, kept: str) -> Iterator[None]:
    """Explains why the block, which writes a folder, failed or was stopped.

    Args:
      place: what messages call the folder, such as "--out runs/data".
      remedy: what to do if it cannot be written.
      kept: what is said about work that the next run need not repeat.

    Raises:
      UserError: if the folder cannot be written.
      StorageError: if the disk is full.
    """
    try:
        yield
    except OSError as error:
        problem = f"cannot write {place} ({error.strerror})"
        if is_disk_full(error):
            advice = "make room and run the same command again"
            raise StorageError(f"{problem}: {advice}{kept}") from None
        raise UserError(f"{problem}: {remedy}") from None
    except (KeyboardInterrupt, Terminated) as stop:
        raise type(stop)(f"run the same command again to resume{kept}") from None
