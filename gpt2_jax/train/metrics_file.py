"""The file metrics.jsonl of a run: its rows are appended, dropped on resume and read back."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from gpt2_jax.errors import warn
from gpt2_jax.files.storage import PatientFile, is_remote, nice_to_have, write_whole


def open_rows(path: Path, start_step: int) -> PatientFile | RemoteRows:
    """Drops the rows after `start_step`, and what a killed process left torn; opens to append.

    On a disk a row reaches the file at once: what watches the run sees it, and a kill loses none.
    """
    _drop_rows_after(path, start_step)
    return RemoteRows(path) if is_remote(path) else PatientFile(path)


class RemoteRows:
    """A file in a bucket, where objects are written whole: sent every 30 s, or when flushed."""

    _EVERY_S = 30

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = [path.read_bytes()] if path.exists() else []
        self._sent = time.monotonic()

    def write(self, row: bytes) -> None:
        """Adds a row."""
        self._rows.append(row)
        if time.monotonic() - self._sent >= self._EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Sends all rows; if the bucket fails, the next time does."""
        self._sent = time.monotonic()
        with nice_to_have(os.fspath(self._path)):
            self._path.write_bytes(b"".join(self._rows))

    def close(self) -> None:
        """Sends all rows."""
        self.flush()


def last_evaluation(workdir: Path) -> tuple[dict[str, float], int]:
    """The finite numbers of the last validation in `metrics.jsonl` and its step, or ({}, 0)."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in reversed(lines):
        row = _row(line) if b'"eval/' in line else {}
        scores = {name: value for name, value in row.items() if name.startswith("eval/")}
        if scores:
            return {name: value for name, value in scores.items() if _is_finite(value)}, row["step"]
    return {}, 0


def _drop_rows_after(path: Path, step: int) -> None:
    """Keeps the rows of metrics.jsonl up to `step`, atomically."""
    if not path.exists():
        return
    found = path.read_bytes()
    lines = found.splitlines()
    rows = [_row(line) for line in lines]
    if no_rows := rows[:-1].count({}):
        warn(f"{path}: {no_rows} of {len(lines)} lines are no rows of metrics, and are dropped")
    kept = [line for line, row in zip(lines, rows, strict=True) if row and row["step"] <= step]
    content = b"".join(line + b"\n" for line in kept)
    if content != found:
        write_whole(path, content)


def _row(line: bytes) -> dict[str, Any]:
    """A row as it was written; {} for anything else, such as a killed process's torn line."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0
    return row if whole else {}


def _is_finite(value: Any) -> bool:
    """Whether it is a number; null is one that was not finite."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
