"""Runs a task: its requests through the scorer, its rows to disk, its numbers from the rows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import NOT_JSON, StorageError, UserError
from gpt2_jax.evals.task import Row, Task
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.parallel.rules import Rules

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def evaluate(
    task: Task,
    scorer: Scorer,
    limit: int | None = None,
    log: Log | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """The task's metrics, and `count`, how many requests they are of.

    Args:
      limit: only the first so many requests.
      log: what it has already is not scored again.
      show: told (requests scored, requests in all).
    """
    requests = task.requests[:limit]
    kept = log.rows if log is not None else {}
    rows = {index: row for index, row in kept.items() if index < len(requests)}
    missing = [index for index in range(len(requests)) if index not in rows]
    wanted = [requests[index] for index in missing]
    show(len(rows), len(requests))
    for found, likelihoods in scorer.score(wanted, task.excluded):
        index = missing[found]
        rows[index] = task.row(index, likelihoods)
        if log is not None:
            log.write(index, rows[index])
        show(len(rows), len(requests))
    return task.metrics([rows[index] for index in sorted(rows)]) | {"count": len(rows)}


class TaskEvaluator:
    """Evaluator of the training loop: `eval/<task>/<metric>` for each task."""

    def __init__(
        self,
        tasks: Sequence[Task],
        config: ModelConfig,
        mesh: Mesh,
        rules: Rules,
        limit: int | None = None,
    ) -> None:
        """Takes tasks made for this model, and how its parameters will lie.

        Args:
          limit: only the first so many requests of each.
        """
        self._tasks, self._config, self._limit = tasks, config, limit
        self._mesh, self._rules = mesh, rules

    def __call__(self, params: Any, tick: Callable[[], None]) -> Iterator[tuple[str, float]]:
        """Yields the numbers for these parameters, without their standard errors."""
        scorer = Scorer(params, self._config, mesh=self._mesh, rules=self._rules)
        for task in self._tasks:
            metrics = evaluate(task, scorer, self._limit, show=lambda *_: tick())
            for name, value in metrics.items():
                if name != "count" and not name.endswith("_stderr"):
                    yield f"eval/{task.name}/{name}", value


class Log:
    """A task's rows on disk, `<task>.jsonl`, from which a stopped evaluation goes on."""

    def __init__(self, folder: Path, task: Task, model: str) -> None:
        """Reads what is there, and leaves it open to write.

        Args:
          model: `model_digest` of the model that is scored.

        Raises:
          UserError: for rows of another model, of other data or another protocol, a file that is
            no log, or a folder that can't be written.
          StorageError: where there is no room.
        """
        self.rows: dict[int, Row] = {}
        self._path = folder / f"{task.name}.jsonl"
        settings = hashlib.sha256(repr((task.protocol, task.excluded)).encode())
        for request in task.requests:
            settings.update(repr(request).encode())
        header = {
            "task": task.name,
            "model": model,
            "data": hashlib.sha256(task.path.read_bytes()).hexdigest(),
            "settings": settings.hexdigest(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = self._path.read_bytes() if self._path.exists() else b""
            # A run that was killed may have left half a line.
            whole = content[: content.rfind(b"\n") + 1]
            lines = []
            for number, line in enumerate(whole.splitlines(), start=1):
                try:
                    lines.append(json.loads(line))
                except NOT_JSON as error:
                    raise UserError(
                        f"{self._path}, line {number}: no row; remove that line to go on"
                    ) from error
            if content and (not lines or lines[0].keys() != header.keys()):
                raise ValueError("no header")
            if lines and lines[0] != header:
                changed = next(key for key in header if lines[0][key] != header[key])
                raise UserError(
                    f"{self._path} has results of {_OTHER[changed]}: remove it, or choose another "
                    "--out"
                )
            for row in lines[1:]:
                self.rows[row.pop("index")] = row
            self._file = open(self._path, "ab")  # noqa: SIM115
            os.truncate(self._path, len(whole))
        except OSError as error:
            raise self._failed(error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{self._path} is no log of an evaluation: remove it") from error
        if not lines:
            self._append(header)

    def write(self, index: int, row: Row) -> None:
        """Adds the row of a request; StorageError where there is no room."""
        self._append({"index": index, **row})

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # what could not be written has been said
            self._file.close()

    def _append(self, value: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(value).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        kind = StorageError if error.errno in _NO_ROOM else UserError
        return kind(f"can't write {self._path}: {error.strerror}")


_OTHER = {
    "task": "another task",
    "model": "another model",
    "data": "other data",
    "settings": "another protocol, or of requests cut otherwise",
}


def model_digest(params: Any, config: ModelConfig) -> str:
    """Tells a model from others: by its config, and the sums and some values of each tensor."""
    digest = hashlib.sha256(repr(config).encode())
    for leaf in jax.tree.leaves(params):
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        # Sums wrap around: any one value that differs shows.
        digest.update(np.asarray(bits.sum(dtype=jnp.uint32)).tobytes())
        digest.update(np.asarray(leaf.reshape(-1)[:: max(1, leaf.size // 64)]).tobytes())
    return digest.hexdigest()
