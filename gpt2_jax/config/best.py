"""The number by which a step is the best, as `checkpoint.best` writes it, and its checks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gpt2_jax.errors import UserError, did_you_mean, short_repr

if TYPE_CHECKING:  # `sections` does not import this module, but `config` imports both
    from gpt2_jax.config.sections import Config

_KNOB = "checkpoint.best"
_LARGER = "max:"
# What ends the names of numbers of which it is known that more is worse, or better.
_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte")
_MORE_IS_BETTER = ("acc", "acc_norm")
_OF_AVERAGE = "eval/ema_"


class Goal(NamedTuple):
    """Says which of two validations is better.

    Attributes:
      name: of the number that is compared, such as `eval/loss`.
      larger: whether the larger one is better.
    """

    name: str
    larger: bool

    def choose(self, values: Mapping[int, float]) -> int | None:
        """Returns the step with the best of {step: value}, or None without any finite value.

        Of equal values the earliest step is the best.
        """
        sign = -1 if self.larger else 1
        ranked = ((sign * value, step) for step, value in values.items() if math.isfinite(value))
        return min(ranked, default=(0.0, None))[1]


def parse_best(text: str) -> Goal | None:
    """Returns what `checkpoint.best` says, or None if it is empty.

    Raises:
      UserError: for what cannot be the name of a number of the validation, and for a number that
        would be kept at its worst.
    """
    if not text:
        return None
    larger = text.startswith(_LARGER)
    name = text.removeprefix(_LARGER)
    if not name.startswith("eval/") or name == "eval/":
        raise UserError(
            f"{_KNOB}={short_repr(text)} must name a number of the validation, such as eval/loss, "
            "or max:eval/hellaswag/acc_norm if larger is better"
        )
    last = name.rpartition("/")[2].removeprefix("ema_").partition("_at_")[0]
    if last in (_LESS_IS_BETTER if larger else _MORE_IS_BETTER):
        better = "smaller" if larger else "larger"
        raise UserError(
            f"{_KNOB}={text} would keep the worst step, because a {better} {last} is better: write "
            f"{'' if larger else _LARGER}{name}"
        )
    return Goal(name, larger)


def is_of_average(goal: Goal) -> bool:
    """Returns whether the number is of the average of the parameters, `optimizer.ema_decay`."""
    return goal.name.startswith(_OF_AVERAGE)


def check_best(config: Config) -> None:
    """Checks `checkpoint.best` and `train.patience` against the other knobs.

    Raises:
      UserError: naming the knob and what it needs.
    """
    goal, patience = parse_best(config.checkpoint.best), config.train.patience
    if patience and goal is None:
        raise UserError(
            f"train.patience={patience} needs {_KNOB}, the number that has to become better: set "
            f"--config.{_KNOB}=eval/loss, or train.patience=0"
        )
    if patience and not config.eval.every:
        raise UserError(
            f"train.patience={patience} has no effect with eval.every=0, which validates only at "
            "the end: set eval.every, the steps between validations"
        )
    if goal and is_of_average(goal) and not config.optimizer.ema_decay:
        raise UserError(
            f"{_KNOB}={config.checkpoint.best} needs an average of the parameters: set "
            "optimizer.ema_decay, which is 0"
        )


def check_reported(goal: Goal, numbers: Collection[str]) -> None:
    """Checks that validations report the number of `checkpoint.best`.

    Args:
      goal: what `parse_best` has returned.
      numbers: the names of all numbers that they report.

    Raises:
      UserError: listing these names.
    """
    if goal.name in numbers:
        return
    listed = ", ".join(sorted(numbers)) or "no numbers"
    raise UserError(
        f"{_KNOB}: validations report no {goal.name}, but {listed}: set one of these"
        f"{did_you_mean(goal.name, numbers)}"
    )
