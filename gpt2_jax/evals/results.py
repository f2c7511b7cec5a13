"""Writes the results of evaluations to their file, `results.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.files.atomic import write_file


def plain(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Returns the metrics for JSON, with None for NaN and infinity, which JSON does not have."""
    return {
        name: {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        for name, metrics in results.items()
    }


def write_results(
    path: Path, model: str, digest: str, results: Mapping[str, Mapping[str, float]]
) -> None:
    """Adds results to the file, which keeps those of other tasks on the same model.

    Args:
      path: the file.
      model: the name of the model, for readers.
      digest: identifies the model; the results of any other model are dropped.
      results: {task: {metric: value}}.

    Raises:
      UserError: if the file exists and cannot be read.
      StorageError: if it cannot be written.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        tasks = before["tasks"] if before.get("digest") == digest else {}
    except (ValueError, RecursionError, LookupError, AttributeError):
        tasks = {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    document = {"model": model, "digest": digest, "tasks": tasks | plain(results)}
    try:
        write_file(path, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
