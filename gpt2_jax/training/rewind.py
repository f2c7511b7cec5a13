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
    """Checks that a grown `train.total_steps` leaves the learning rates of all steps so far.

    That is so with a constant schedule, and if the decay has not begun. Otherwise
    `schedule.allow_rewind` decides; if it is set, a warning gives the rates.

    Args:
      saved: the config that the steps so far were trained with.
      new: the config to resume with.
      step: how many steps there are so far.
      workdir: the run's folder.

    Raises:
      UserError: giving the rate of the next step in both schedules.
    """
    total, longer = saved.train.total_steps, new.train.total_steps
    if longer == total:
        return
    before, after = make_schedule(saved.schedule, total), make_schedule(new.schedule, longer)
    updates = np.arange(step)
    if np.array_equal(before(updates), after(updates)):
        return
    jump = (
        f"train.total_steps={longer} instead of {total} stretches the {new.schedule.name} decay, "
        f"which changes the learning rate of step {step + 1} from {before(step):.2g} to "
        f"{after(step):.2g}"
    )
    if not new.schedule.allow_rewind:
        raise UserError(
            f"{jump}: keep {total}; or start a new run, with another --workdir and "
            f"--config.train.init_from={workdir}; or accept the jump with "
            "--config.schedule.allow_rewind=true"
        )
    if is_primary():
        warn(f"{jump}, as schedule.allow_rewind allows")
