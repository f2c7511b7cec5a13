"""Runs a task: its requests through the scorer, its rows to disk, its numbers from the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import jax
import numpy as np

from gpt2_jax.checkpoint.load import Loaded
from gpt2_jax.errors import UserError
from gpt2_jax.evals.batching import Request
from gpt2_jax.evals.scoring import Scorer
from gpt2_jax.evals.task import Row, Task


def evaluate(
    task: Task,
    scorer: Scorer,
    loaded: Loaded,
    limit: int | None = None,
    out: str | Path | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """The task's metrics for a model, and `count`, how many examples they are of.

    Args:
      limit: only the first so many examples.
      out: folder that keeps the rows in `<task>.jsonl`; those it has of this model and these
        examples are not scored again.
      show: told (examples scored, examples in all).

    Raises:
      UserError: for an `out` that has rows of another model or other examples.
    """
    requests = task.requests(loaded.tokenizer, loaded.config.model.context_length)[:limit]
    rows: dict[int, Row] = {}
    log: IO[str] | None = None
    if out is not None:
        log, rows = _open_log(Path(out), task.name, _digest(loaded, requests))
    show(len(rows), len(requests))
    missing = [index for index in range(len(requests)) if index not in rows]
    try:
        for found, likelihoods in scorer.score([requests[index] for index in missing]):
            index = missing[found]
            rows[index] = task.row(index, likelihoods)
            if log is not None:
                log.write(json.dumps({"index": index, **rows[index]}) + "\n")
                log.flush()
            show(len(rows), len(requests))
    finally:
        if log is not None:
            log.close()
    return task.metrics([rows[index] for index in sorted(rows)]) | {"count": len(rows)}


def _open_log(out: Path, name: str, digest: str) -> tuple[IO[str], dict[int, Row]]:
    """The open log of a task, and the rows it has already."""
    path = out / f"{name}.jsonl"
    rows: dict[int, Row] = {}
    header = {"task": name, "digest": digest}
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A run that was killed may have left half a line.
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        if whole and whole[0] != header:
            raise UserError(f"{path} has results of another model or other examples: remove it")
        for row in whole[1:]:
            rows[row.pop("index")] = row
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(header) + "\n")
            file.writelines(json.dumps({"index": i, **row}) + "\n" for i, row in rows.items())
        return open(path, "a", encoding="utf-8"), rows
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no log of an evaluation: remove it") from error


def _digest(loaded: Loaded, requests: Sequence[Request]) -> str:
    """Tells a model and its examples from others, by its shape, a part of each tensor, and ids."""
    digest = hashlib.sha256(repr(loaded.config.model).encode())
    for leaf in jax.tree.leaves(loaded.params):
        digest.update(np.asarray(leaf.reshape(-1)[:: max(1, leaf.size // 64)]).tobytes())
    for request in requests:
        digest.update(repr(request).encode())
    return digest.hexdigest()
