"""Searches meshes, microbatches and remat policies: estimates all, compiles the best."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from gpt2_jax.config import Config, MeshConfig
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import divisors
from gpt2_jax.planning.layout import dividing_meshes
from gpt2_jax.planning.plan import Plan, analytic_plan


def candidates(config: Config, chip: Chip, num_devices: int, num_slices: int = 1) -> list[Plan]:
    """Returns analytic plans of choices that may fit, the fastest first by the analytic model.

    The batch of a step stays as the config says, because it decides what is learned; only the
    number of its microbatches changes.
    """
    estimates = [
        analytic_plan(choice, chip, num_devices, "", num_slices)
        for choice in _choices(config, num_devices, num_slices)
    ]
    # There is no safety margin: the analytic model is too low more often than too high.
    return _fastest_first(plan for plan in estimates if plan.memory.fits)


def search(
    choices: Sequence[Plan],
    compile_plan: Callable[[Config], Plan],
    *,
    count: int,
    seconds: float,
    log: Callable[[str], None] = lambda line: None,
) -> list[Plan]:
    """Compiles the choices in order until `count` of them fit, or the time is up.

    Args:
      choices: analytic plans of the choices, as `candidates` returns them.
      compile_plan: compiles a config and returns its plan.
      count: number of plans to find.
      seconds: time after which no further compilation starts.
      log: takes each line of progress.

    Returns:
      The plans that fit, the fastest first.
    """
    deadline = time.monotonic() + seconds
    fitting: list[Plan] = []
    for number, choice in enumerate(choices, start=1):
        if len(fitting) == count or time.monotonic() > deadline:
            break
        log(
            f"{number} of {len(choices)}: {choice.layout}, remat {choice.config.compute.remat}, "
            f"{choice.rows_per_device} sequences a device"
        )
        plan = compile_plan(choice.config)
        log(f"  {'fits' if plan.memory.fits else 'does not fit'}")
        if plan.memory.fits:
            fitting.append(plan)
    return _fastest_first(fitting)


def _fastest_first(plans: Iterable[Plan]) -> list[Plan]:
    return sorted(plans, key=lambda plan: sum(plan.step_seconds or ()))


def _choices(config: Config, num_devices: int, num_slices: int) -> Iterator[Config]:
    for sizes in dividing_meshes(config, num_devices, num_slices):
        mesh = MeshConfig(*sizes)
        shards = sizes[0] * sizes[1]
        rows, remainder = divmod(config.train.batch_size, shards)
        if remainder:
            continue
        for steps in divisors(rows) if rows else ():
            train = dataclasses.replace(config.train, accumulation_steps=steps)
            for remat in ("none", "dots", "full"):
                compute = dataclasses.replace(config.compute, remat=remat)
                yield dataclasses.replace(config, mesh=mesh, train=train, compute=compute)
