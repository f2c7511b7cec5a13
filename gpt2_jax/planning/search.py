"""Mesh, microbatch and remat choices for a slice: guessed from shapes, proven by the compiler."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from gpt2_jax.config import Config, MeshConfig
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import divisors
from gpt2_jax.parallel.rules import Rules, divisible_meshes
from gpt2_jax.planning.plan import Plan, analytic_plan
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.state import boxed_state

# Tensor parallelism over more devices than this reduces activations over too slow a way.
_MOST_TENSOR = 8


def candidates(config: Config, chip: Chip, num_devices: int) -> list[Plan]:
    """Analytic plans of choices that may fit, the fastest first by the analytic model.

    The batch of a step stays what the config says, for it decides what is learned: only the number
    of microbatches it is cut into changes.
    """
    guesses = [
        analytic_plan(choice, chip, num_devices, "") for choice in _choices(config, num_devices)
    ]
    # Nothing is added for safety: the analytic model is more often too low than too high.
    return _fastest_first(guess for guess in guesses if guess.memory.fits)


def search(
    guesses: Sequence[Plan],
    compile_plan: Callable[[Config], Plan],
    *,
    count: int,
    seconds: float,
    log: Callable[[str], None] = lambda line: None,
) -> list[Plan]:
    """Compiles the choices of the guesses in order until `count` of them fit, or the time is up.

    Returns:
      those that fit, the fastest first by what was compiled.
    """
    deadline = time.monotonic() + seconds
    fitting: list[Plan] = []
    for number, guess in enumerate(guesses, start=1):
        if len(fitting) == count or time.monotonic() > deadline:
            break
        log(
            f"{number} of {len(guesses)}: {guess.layout}, remat {guess.config.model.remat}, "
            f"{guess.rows_per_device} sequences a device"
        )
        plan = compile_plan(guess.config)
        log(f"  {'fits' if plan.memory.fits else 'does not fit'}")
        if plan.memory.fits:
            fitting.append(plan)
    return _fastest_first(fitting)


def _fastest_first(plans: Iterable[Plan]) -> list[Plan]:
    return sorted(plans, key=lambda plan: sum(plan.step_seconds or ()))


def _choices(config: Config, num_devices: int) -> Iterator[Config]:
    meshes = divisible_meshes(boxed_state(config, make_optimizer(config)), Rules(), num_devices)
    for sizes in meshes:
        if sizes[2] > _MOST_TENSOR:
            continue
        mesh = MeshConfig(*sizes)
        shards = sizes[0] * sizes[1]
        rows, left = divmod(config.train.batch_size, shards)
        if left:
            continue
        for steps in divisors(rows) if rows else ():
            train = dataclasses.replace(config.train, accumulation_steps=steps)
            for remat in ("none", "dots", "full"):
                model = dataclasses.replace(config.model, remat=remat)
                yield dataclasses.replace(config, mesh=mesh, train=train, model=model)
