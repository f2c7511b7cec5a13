"""The lines of a run's metrics.jsonl: appended, dropped on resume and read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.errors import warn
from gpt2_jax.files.append import AppendFile, RemoteAppendFile, open_append
from gpt2_jax.files.atomic import write_file


def open_lines(path: Path, start_step: int) -> AppendFile | RemoteAppendFile:
    """Opens metrics.jsonl to append to, without the lines of steps after `start_step`.

    A line that a killed process left unfinished is dropped too. On a disk a line reaches the file
    at once: programs that watch the run see it, and no line is lost if the run is killed.

    Raises:
      OSError: if the file cannot be opened, unless the disk is full.
    """
    _drop_lines_after(path, start_step)
    return open_append(path)


def last_evaluation(workdir: Path) -> tuple[dict[str, float], int]:
    """Returns the finite numbers of the last validation in metrics.jsonl and its step.

    Without any validation it returns ({}, 0).
    """
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return last_scores(map(_parse, reversed(lines)))


def last_scores(lines_from_last: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], int]:
    """Returns what `last_evaluation` does, of lines in reverse order."""
    for line in lines_from_last:
        scores = {name: value for name, value in line.items() if name.startswith("eval/")}
        if scores:
            finite = {name: float(value) for name, value in scores.items() if _is_finite(value)}
            return finite, line["step"]
    return {}, 0


def last_step(workdir: Path) -> int:
    """Returns the largest step of metrics.jsonl, or 0 without any."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return max((_parse(line).get("step", 0) for line in lines), default=0)


def _drop_lines_after(path: Path, step: int) -> None:
    """Rewrites metrics.jsonl atomically with its lines up to `step`."""
    if not path.exists():
        return
    before = path.read_bytes()
    lines = before.splitlines()
    parsed = [_parse(line) for line in lines]
    # The last line may be torn: a run that was killed leaves it so.
    if malformed := parsed[:-1].count({}):
        warn(f"{path}: dropped malformed lines: {malformed} of {len(lines)}")
    kept = [
        line
        for line, values in zip(lines, parsed, strict=True)
        if values and values["step"] <= step
    ]
    after = b"".join(line + b"\n" for line in kept)
    if after != before:
        write_file(path, after)


def _parse(line: bytes) -> dict[str, Any]:
    """Returns the values of a line, or {} if it is malformed, such as cut off by a kill."""
    try:
        values = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    has_step = isinstance(values, dict) and type(values.get("step")) is int and values["step"] >= 0
    return values if has_step else {}


def _is_finite(value: Any) -> bool:
    """Returns whether a value is a finite number; others are stored as null."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
