"""Which step of a run is the best: the record of it, and how it is found without the record.

`checkpoints/best.json` holds {"metric": `checkpoint.best`, "step", "value"}. It is written once the
checkpoint of that step is committed, and before that of the best step until then is removed. A kill
between these leaves a record that is older than the checkpoints, or none; metrics.jsonl then has
all that is needed to write it again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config.best import parse_best
from gpt2_jax.errors import NOT_JSON, StorageError, UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.parallel.distributed import broadcast_from_primary

RECORD = "best.json"

_CONFIG, _METRICS = "config.json", "metrics.jsonl"  # of the run, beside the folder of checkpoints
_VALIDATED = "eval/"  # begins the names of the numbers of validations
_LOOKS = 5  # how often the best step is looked for and read
_T = TypeVar("_T")


class Best(NamedTuple):
    """Holds the best step of a run.

    Attributes:
      metric: `checkpoint.best` of the run.
      step: the best step by it.
      value: the number that the validation of this step gave.
    """

    metric: str
    step: int
    value: float


def write_record(directory: Path, best: Best) -> None:
    """Writes the record into the folder of checkpoints, unless it already says the same.

    Raises:
      OSError: if it cannot be written.
    """
    if read_record(directory) != best:
        write_file(directory / RECORD, f"{json.dumps(best._asdict())}\n".encode())


def read_record(directory: Path) -> Best | None:
    """Returns what the record in a folder of checkpoints says, or None without a valid one."""
    try:
        entries = json.loads((directory / RECORD).read_bytes())
        best = Best(*(entries[name] for name in Best._fields))
        valid = parse_best(best.metric) is not None and math.isfinite(best.value)
    except (*NOT_JSON, UserError, TypeError, KeyError, AttributeError):
        return None
    return best if valid and type(best.step) is int and best.step >= 0 else None


def remove_record(directory: Path) -> None:
    """Removes the record, if there is one.

    Raises:
      OSError: if it cannot be removed.
    """
    (directory / RECORD).unlink(missing_ok=True)


def validated_values(workdir: Path, name: str) -> dict[int, float]:
    """Returns {step: value} of a number of the validations in metrics.jsonl, in their order.

    A value that is not finite, which is null there, becomes NaN. Malformed lines are left out, as a
    killed run leaves them.

    Raises:
      OSError: if the file exists and cannot be read.
    """
    path = workdir / _METRICS
    values: dict[int, float] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        if _VALIDATED.encode() not in line:
            continue
        try:
            entries = json.loads(line)
            step, value = entries["step"], entries[name]
        except (ValueError, RecursionError, TypeError, KeyError):
            continue
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        values[step] = float(value) if is_number else math.nan
    return values


def find_best(directory: Path, steps: Collection[int]) -> Best | None:
    """Returns the best of some steps: by the record, or else by config.json and metrics.jsonl.

    Args:
      directory: the folder of checkpoints.
      steps: those that have a checkpoint.

    Raises:
      OSError: if metrics.jsonl exists and cannot be read.
    """
    record = read_record(directory)
    if record is not None and record.step in steps:
        return record
    workdir = directory.parent
    try:
        metric = record.metric if record else _metric_of_run(workdir)
        goal = parse_best(metric)
    except (*NOT_JSON, UserError, TypeError, KeyError, AttributeError):
        return None
    if goal is None:
        return None
    values = validated_values(workdir, goal.name)
    step = goal.choose({step: value for step, value in values.items() if step in steps})
    return None if step is None else Best(metric, step, values[step])


def _metric_of_run(workdir: Path) -> Any:
    return json.loads((workdir / _CONFIG).read_bytes())["checkpoint"]["best"]


def read_best(
    store: CheckpointStore, read: Callable[[int], _T], known: int | None = None
) -> tuple[int, _T]:
    """Returns (the best step, what `read` returns of it).

    A trainer that finds a better step meanwhile removes this one. Then the best is looked up again,
    a limited number of times.

    Args:
      store: the checkpoints of a run, opened with `read_only`.
      read: reads a step; it raises StorageError if it cannot.
      known: the step to read first, if the best was looked up before.

    Raises:
      StorageError: if the best step cannot be read.
      UserError: if no step is known to be the best, and what `read` raises.
    """
    for looks_left in reversed(range(_LOOKS)):
        step, known = _best_step(store) if known is None else known, None
        try:
            return step, read(step)
        except StorageError:
            # In a run of several processes they may not all see the same.
            if not looks_left or jax.process_count() > 1 or _best_step(store) == step:
                raise
        store.close()  # what Orbax has listed is out of date
    raise AssertionError("the last look returns or raises")


def _best_step(store: CheckpointStore) -> int:
    best = find_best(store.directory, store.steps())
    step = broadcast_from_primary(-1 if best is None else best.step)
    if step < 0:
        raise UserError(
            f"{store.directory}/best: no step of this run is known to be the best, because it was "
            f"trained without checkpoint.best, or has no validated checkpoint yet: name a step, or "
            f"{store.directory}/newest"
        )
    return step
