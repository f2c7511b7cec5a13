"""Refuses a longer run on resume whose schedule would rewind: raise the learning rate again.

A decay reaches its minimum at `train.total_steps`. If this grows, the same step lies earlier in the
decay, and its rate is higher: the run would jump to a rate that it had left behind, and no run
without the interruption would have had the rates before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2_jax.config import Config
from gpt2_jax.errors import UserError, warn
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.training.optimizer import make_schedule


def check_rates_so_far(saved: Config, new: Config, step: int, workdir: Path) -> None:
    """Checks that a grown `train.total_steps` leaves the learning rates of all updates so far.

    That is so with a constant schedule, and if the decay has not begun. Otherwise
    `schedule.allow_rewind` decides; if it is set, a warning gives the rates. The optimizer counts
    updates, and a skipped step makes none: it is taken for one, so that after skipped steps the
    rates of as many updates that are still to come are compared, too.

    Args:
      saved: the config that the steps so far were trained with.
      new: the config to resume with.
      step: how many steps there are so far, of which each made an update or was skipped.
      workdir: the run's folder.

    Raises:
      UserError: giving, for both schedules, the rates of the update where they differ most, and of
        the next update.
    """
    total, longer = saved.train.total_steps, new.train.total_steps
    if longer == total:
        return
    updates = np.arange(step + 1)
    before, after = (
        np.asarray(make_schedule(config.schedule, steps)(updates), np.float64)
        for config, steps in ((saved, total), (new, longer))
    )
    difference = np.abs(after - before)[:step]
    if not difference.any():
        return
    most = int(difference.argmax())
    jump = (
        f"train.total_steps={longer} instead of {total} stretches the {new.schedule.name} decay. "
        f"The learning rates of the updates so far would have been others: update {most + 1} of "
        f"{step} differs most ({_apart(before[most], after[most])}), and the next would jump "
        f"({_apart(before[step], after[step])})"
    )
    if not new.schedule.allow_rewind:
        raise UserError(
            f"{jump}: keep {total}; or start a new run, with another --workdir and "
            f"--config.train.init_from={workdir}; or accept the jump with "
            "--config.schedule.allow_rewind=true"
        )
    if is_primary():
        warn(f"{jump}, as schedule.allow_rewind allows")


def _apart(before: float, after: float) -> str:
    """Returns `x before, y now` with as many digits as tell them apart, but at least two."""
    for digits in range(2, 10):  # nine distinguish all float32
        texts = f"{before:.{digits}g}", f"{after:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} before, {texts[1]} now"
