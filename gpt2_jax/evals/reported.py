"""Knows before a run starts which numbers its validations will report."""

from __future__ import annotations

from collections.abc import Collection

from gpt2_jax.config import Config
from gpt2_jax.config.best import check_reported, parse_best
from gpt2_jax.evals.perplexity import short_names


def check_best_is_reported(config: Config, sets: Collection[str], tasks: Collection[str]) -> None:
    """Checks that validations will report the number of `checkpoint.best`.

    Which numbers a task reports is known only once it has been scored, so that of these only the
    name of the task is checked.

    Args:
      config: of the run.
      sets: the paths of its data.
      tasks: the names of its tasks.

    Raises:
      UserError: listing the numbers that there will be.
    """
    goal = parse_best(config.checkpoint.best)
    if goal is None or any(goal.name.startswith(f"eval/{task}/") for task in tasks):
        return
    losses = ["eval/loss"]
    if len(sets) > 1:
        losses += [f"eval/{name}/loss" for name in short_names(list(sets))]
    numbers = [*losses, "eval/perplexity", "eval/bits_per_byte"]
    if config.optimizer.ema_decay:
        numbers += [name.replace("eval/", "eval/ema_", 1) for name in numbers]
    numbers += [f"{name}_at_{length}" for length in config.eval.lengths for name in losses]
    check_reported(goal, [*numbers, *(f"eval/{task}/..." for task in tasks)])
