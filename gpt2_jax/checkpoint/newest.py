"""Reads the newest step of a run while its trainer saves others and removes what is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.parallel.distributed import broadcast_from_primary

# How often the newest step is looked for and read.
_LOOKS = 5
_T = TypeVar("_T")


def read_newest(
    store: CheckpointStore, read: Callable[[int], _T], known: int | None = None
) -> tuple[int, _T]:
    """Returns (the newest good step, what `read` returns of it).

    A trainer that saves another step meanwhile may remove this one. Then the newest is looked up
    again, a limited number of times.

    Args:
      store: the checkpoints of a run, opened with `read_only`.
      read: reads a step; it raises StorageError if it cannot.
      known: the step to read first, if the newest was looked up before.

    Raises:
      StorageError: if there is no good step, or it cannot be read.
      UserError: what `read` raises.
    """
    for looks_left in reversed(range(_LOOKS)):
        step, known = known, None
        if step is None:
            survey = store.survey()
            changed = broadcast_from_primary(int(survey.steps != store.steps()))
            if survey.damaged and changed and looks_left:
                continue
            step = store.accept(survey)
        if step is None:
            break
        try:
            return step, read(step)
        except StorageError:
            if not looks_left or not _is_superseded(store, step):
                raise
        store.close()  # what Orbax has listed is out of date
    raise StorageError(
        f"{store.directory} has no good checkpoint: the run has not saved one yet, or all of them "
        "were removed"
    )


def _is_superseded(store: CheckpointStore, step: int) -> bool:
    """Returns whether there is a newer step, so that a trainer may be removing this one.

    In a run of several processes it returns False, because they may not all see the same.
    """
    return jax.process_count() == 1 and any(other > step for other in store.steps())
