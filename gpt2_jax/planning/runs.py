"""Plans many runs from shapes alone: how long each of them takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from gpt2_jax.config import Config
from gpt2_jax.data.token_sets import resolve_vocab_size
from gpt2_jax.errors import UserError
from gpt2_jax.model.defaults import with_dtype
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import is_unset
from gpt2_jax.planning.estimate import Range
from gpt2_jax.planning.layout import choose_layout
from gpt2_jax.planning.plan import analytic_plan


def run_seconds(configs: Iterable[Config], chip: Chip, num_devices: int) -> list[Range]:
    """Returns the seconds of the steps of each run, (best case, worst case).

    Runs of one shape, such as those of other seeds and rates, are planned once. Compilation and
    validation are not counted.

    Args:
      configs: those of the runs.
      chip: figures of one device.
      num_devices: the devices of each run.

    Raises:
      UserError: if a mesh does not divide the model or the batch, or data that decides about the
        vocabulary is missing.
    """
    steps: dict[str, Range] = {}
    seconds = []
    for config in configs:
        shape = repr((config.model, config.compute, config.mesh, config.data, _batch(config)))
        if shape not in steps:
            steps[shape] = _step_seconds(config, chip, num_devices)
        best, worst = steps[shape]
        count = config.train.total_steps
        seconds.append((count * best, count * worst))
    return seconds


def _batch(config: Config) -> tuple[int, int]:
    return config.train.batch_size, config.train.accumulation_steps


def _step_seconds(config: Config, chip: Chip, num_devices: int) -> Range:
    config = resolve_vocab_size(config)
    # For TPUs and GPUs, dtype=auto means the same.
    config = dataclasses.replace(config, compute=with_dtype(config.compute, "tpu"))
    if is_unset(config.mesh) and num_devices > 1:
        mesh = choose_layout(config, chip, num_devices).mesh
        config = dataclasses.replace(config, mesh=mesh)
    name = f"{num_devices} x {chip.name}"
    plan = analytic_plan(config, chip, num_devices, name)
    if plan.step_seconds is None:
        raise UserError(f"the step cannot be planned for {name}")
    return plan.step_seconds
