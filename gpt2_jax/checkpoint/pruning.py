"""Removes the checkpoints of steps that are not to be kept.

Orbax decides at a save which steps it removes. The best step is known only after the validation
that follows, so a run with `checkpoint.best` removes its old steps itself, at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from gpt2_jax.checkpoint.folders import mark_half_written
from gpt2_jax.errors import error_text, shortened, warn
from gpt2_jax.files.paths import remove_tree


def steps_to_remove(
    steps: Iterable[int], *, keep: int, keep_every: int | None, also: Collection[int]
) -> list[int]:
    """Returns the steps that are not to be kept, oldest first.

    Args:
      steps: all that have a checkpoint.
      keep: number of the newest to keep.
      keep_every: multiples of this are kept as well; None keeps no others.
      also: further steps to keep.
    """
    old = sorted(steps)[:-keep]
    return [step for step in old if step not in also and (keep_every is None or step % keep_every)]


def remove_steps(directory: Path, steps: Iterable[int]) -> None:
    """Removes checkpoints, and only warns if it cannot.

    Each first becomes one that looks half written, which the next start removes. So whatever
    interrupts the removal, no step is left with a part of its files.
    """
    for step in steps:
        try:
            remove_tree(mark_half_written(directory / str(step)))
        except Exception as error:  # the errors of buckets have no common base
            reason = shortened(error_text(error), 200)
            warn(f"the checkpoint {directory / str(step)} was not removed: {reason}")
