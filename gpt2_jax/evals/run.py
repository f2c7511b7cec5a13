"""Runs a task: scores its requests, keeps each example's result, and computes the metrics."""

from __future__ import annotations

import contextlib
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

from gpt2_jax.config import Config
from gpt2_jax.errors import NOT_JSON, StorageError, UserError
from gpt2_jax.evals.task import Row, Task
from gpt2_jax.files.disk_full import is_disk_full
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.parallel.rules import Rules

Show = Callable[[int, int], None]
"""Shows progress: called with (examples scored, all examples)."""


def evaluate(
    task: Task,
    scorer: Scorer,
    limit: int | None = None,
    log: Log | None = None,
    show: Show = lambda done, total: None,
) -> dict[str, float]:
    """Returns the task's metrics, and `count`, the number of requests that were scored.

    Args:
      task: the task.
      scorer: scores with the model.
      limit: how many requests to score, from the first; all by default.
      log: keeps each result; results that it already has are not scored again.
      show: called with (requests scored, requests in all).
    """
    requests = task.requests[:limit]
    kept = log.rows if log is not None else {}
    rows = {index: row for index, row in kept.items() if index < len(requests)}
    missing = [index for index in range(len(requests)) if index not in rows]
    pending = [requests[index] for index in missing]
    show(len(rows), len(requests))
    for position, likelihoods in scorer.score(pending, task.excluded):
        index = missing[position]
        rows[index] = task.row(index, likelihoods)
        if log is not None:
            log.write(index, rows[index])
        show(len(rows), len(requests))
    return task.metrics([rows[index] for index in sorted(rows)]) | {"count": len(rows)}


def evaluate_and_keep(
    task: Task,
    scorer: Scorer,
    limit: int | None,
    folder: Path | None,
    model: str,
    show: Show,
) -> dict[str, float]:
    """Returns what `evaluate` does, with a log of the results in a folder, if there is one.

    Args:
      task, scorer, limit, show: see `evaluate`.
      folder, model: see `Log` and `header_of`.

    Raises:
      UserError: see `Log`.
      StorageError: if the disk is full.
    """
    if folder is None:
        return evaluate(task, scorer, limit, show=show)
    with contextlib.closing(Log(folder, task.name, header_of(task, model))) as log:
        return evaluate(task, scorer, limit, log, show)


class TaskEvaluator:
    """Evaluates tasks in the training loop, as `eval/<task>/<metric>`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        config: Config,
        mesh: Mesh,
        rules: Rules,
        limit: int | None = None,
    ) -> None:
        """Takes tasks made for this model, and how its parameters are sharded.

        Args:
          tasks: see `Task`.
          config: of the run.
          mesh, rules: how the parameters are sharded.
          limit: how many requests of each task to score, from the first; all by default.
        """
        self._tasks, self._config, self._limit = tasks, config, limit
        self._mesh, self._rules = mesh, rules

    def __call__(self, params: Any, tick: Callable[[], None]) -> Iterator[tuple[str, float]]:
        """Yields the numbers for these parameters, without their standard errors."""
        scorer = Scorer(
            params, self._config.model, self._config.compute, mesh=self._mesh, rules=self._rules
        )
        for task in self._tasks:
            metrics = evaluate(task, scorer, self._limit, show=lambda *_: tick())
            for name, value in metrics.items():
                if name != "count" and not name.endswith("_stderr"):
                    yield f"eval/{task.name}/{name}", value


class Log:
    """Keeps a task's results in `<task>.jsonl`, from which an interrupted evaluation resumes."""

    def __init__(self, folder: Path, name: str, header: dict[str, str]) -> None:
        """Reads the existing results and opens the file for more.

        Args:
          folder: of the file; it is made if it is missing.
          name: of the task.
          header: what must not have changed since: the task, the model, the data and the settings,
            under the keys of `header_of`.

        Raises:
          UserError: if the file has results of another model, other data or another protocol, or is
            not such a log, or the folder cannot be written.
          StorageError: if the disk is full.
        """
        self.rows: dict[int, Row] = {}
        self._path = folder / f"{name}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = self._path.read_bytes() if self._path.exists() else b""
            # A process that was killed may have left an incomplete line.
            complete = content[: content.rfind(b"\n") + 1]
            lines = []
            for number, line in enumerate(complete.splitlines(), start=1):
                try:
                    lines.append(json.loads(line))
                except NOT_JSON as error:
                    raise UserError(
                        f"{self._path}, line {number} is not JSON: remove that line to resume"
                    ) from error
            if content and (not lines or lines[0].keys() != header.keys()):
                raise ValueError("no header")
            if lines and lines[0] != header:
                changed = next(key for key in header if lines[0][key] != header[key])
                raise UserError(
                    f"{self._path} has results of {_CHANGES[changed]}: remove it, or choose "
                    "another --out"
                )
            for row in lines[1:]:
                self.rows[row.pop("index")] = row
            self._file = open(self._path, "ab")  # noqa: SIM115
            os.truncate(self._path, len(complete))
        except OSError as error:
            raise self._failed(error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{self._path} is not the log of an evaluation: remove it") from error
        if not lines:
            self._append(header)

    def write(self, index: int, row: Row) -> None:
        """Appends the result of a request.

        Raises:
          StorageError: if the disk is full.
        """
        self._append({"index": index, **row})

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # a failure to write was reported when it happened
            self._file.close()

    def _append(self, value: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(value).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        kind = StorageError if is_disk_full(error) else UserError
        return kind(f"cannot write {self._path}: {error.strerror}")


def header_of(task: Task, model: str) -> dict[str, str]:
    """Returns the header of a task's log.

    Args:
      task: the task that is scored.
      model: `model_digest` of the model that is scored.
    """
    settings = hashlib.sha256(repr((task.protocol, task.excluded)).encode())
    for request in task.requests:
        settings.update(repr(request).encode())
    return {
        "task": task.name,
        "model": model,
        "data": hashlib.sha256(task.path.read_bytes()).hexdigest(),
        "settings": settings.hexdigest(),
    }


# Key of the header -> what it means if that key has changed.
_CHANGES = {
    "task": "another task",
    "model": "another model",
    "data": "other data",
    "settings": "another protocol, or of requests that were split differently",
}


def model_digest(params: Any, config: Config) -> str:
    """Returns a hash of a model's config and of the sums and some values of each tensor."""
    digest = hashlib.sha256(repr((config.model, config.compute)).encode())
    for leaf in jax.tree.leaves(params):
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        # Sums wrap around, so that a change of any single value changes the digest.
        digest.update(np.asarray(bits.sum(dtype=jnp.uint32)).tobytes())
        digest.update(np.asarray(leaf.reshape(-1)[:: max(1, leaf.size // 64)]).tobytes())
    return digest.hexdigest()
