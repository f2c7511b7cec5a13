"""Keeps the checkpoint of the best validated step, and ends a run that no longer improves.

A step is validated after it is saved, so its number is not known at the save. The decision follows
the validation: a best step that is not saved yet is saved then. Checkpoints are removed once a save
is committed, and after a validation, and never the best of those that are on the disk. As the
newest checkpoint is always kept, and a step is validated before the next is saved, no step is
removed that still has to be validated.

Everything is decided from the lines of metrics.jsonl up to the current step, and from the
checkpoints that exist. So a run that was interrupted at any point, and resumed, decides the same.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from typing import Any

from gpt2_jax.checkpoint.best import (
    Best,
    read_record,
    remove_record,
    validated_values,
    write_record,
)
from gpt2_jax.checkpoint.folders import rename_damaged
from gpt2_jax.checkpoint.pruning import remove_steps, steps_to_remove
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config.best import check_reported, is_of_average, parse_best
from gpt2_jax.errors import StorageError, warn
from gpt2_jax.files.best_effort import warn_if_not_written
from gpt2_jax.parallel.distributed import broadcast_from_primary, is_primary, run_on_primary
from gpt2_jax.training.evaluation import Evaluation
from gpt2_jax.training.progress import decimals
from gpt2_jax.training.run import Run
from gpt2_jax.training.saving import Saver
from gpt2_jax.training.state import TrainState


class BestStep:
    """Compares the validations of a run by `checkpoint.best`; without it, does nothing.

    Process 0 compares and removes, and the others follow. Each must call every method, in the same
    order.

    Attributes:
      active: whether `checkpoint.best` is set.
      ended: whether the last `train.patience` validations gave no new best step.
    """

    def __init__(self, run: Run, store: CheckpointStore, start: int) -> None:
        """Finds the best step so far, once metrics.jsonl has no lines after step `start`.

        A best checkpoint that is damaged is renamed to `<step>.damaged`, with a warning.

        Raises:
          StorageError: if metrics.jsonl cannot be read.
        """
        self._run, self._store = run, store
        self._goal = parse_best(run.config.checkpoint.best)
        self._values: dict[int, float] = {}  # {step: value} of the validations; in process 0 alone
        self.active, self.ended = self._goal is not None, False
        if self.active:
            run_on_primary(lambda: self._values.update(self._values_so_far(start)))
            self._set_damaged_aside(start)
            self.settle()
            self._count()

    def forget(self) -> None:
        """Removes the record of a run that goes on without `checkpoint.best`, because it ages."""
        if not self.active and is_primary():
            with warn_if_not_written("the removal of best.json"):
                remove_record(self._store.directory)

    def after_validation(
        self, evaluation: Evaluation, saver: Saver
    ) -> Callable[[int, TrainState], None]:
        """Returns the hook function that decides whether the step just validated is the best.

        It saves the step if it is the best and not saved yet. Where the validation did not report
        the number, it saves and raises UserError.
        """

        def decide(step: int, state: TrainState) -> None:
            assert self._goal is not None
            numbers = evaluation.results
            if not broadcast_from_primary(int(self._goal.name in numbers)):
                if is_of_average(self._goal):  # which is not validated before the first update
                    return
                saver.save_if_new(step, state)
                saver.finish()
                check_reported(self._goal, numbers)
            if is_primary():
                value = float(numbers[self._goal.name])
                self._values[step] = value if math.isfinite(value) else math.nan
            steps = {*self._store.steps(), saver.pending, step}
            if broadcast_from_primary(int(self._best_of(steps) == step)):
                saver.save_if_new(step, state)
            self.settle()
            self._count()

        return decide

    def settle(self) -> None:
        """Writes which step with a checkpoint is the best, and removes what is not to be kept."""
        if not self.active or not is_primary():
            return
        directory, steps = self._store.directory, self._store.steps()
        step = self._best_of(steps)
        if step is not None:
            with warn_if_not_written(f"{directory}/best.json"):
                metric = self._run.config.checkpoint.best
                write_record(directory, Best(metric, step, self._values[step]))
        keep = self._run.config.checkpoint
        also = () if step is None else (step,)
        old = steps_to_remove(steps, keep=keep.keep, keep_every=keep.keep_every, also=also)
        remove_steps(directory, old)

    def result(self) -> dict[str, float]:
        """Returns {"best_step": the best step with a checkpoint}, or {} if there is none."""
        best = -1 if (step := self._best_of(self._store.steps())) is None else step
        best = broadcast_from_primary(best)
        return {} if best < 0 else {"best_step": best}

    def why_ended(self) -> str:
        """Returns, in process 0, why `train.patience` has ended the run."""
        assert self._goal is not None
        best, patience = self._best_of(self._values), self._run.config.train.patience
        count = "in 1 validation" if patience == 1 else f"in {patience} validations in a row"
        count = f"{count}, as train.patience={patience} asks"
        if best is None:
            return f"{self._goal.name} was not finite {count}"
        value = decimals(self._values[best])
        return f"{self._goal.name} was not better than {value}, of step {best}, {count}"

    def summary(self, step: int) -> str:
        """Returns, in process 0, a line on the best step of a run that stands at `step`."""
        assert self._goal is not None
        best = self._best_of(self._store.steps())
        if best is None:
            return f"no checkpoint is the best, because {self._goal.name} was never finite"
        path = shlex.quote(f"{self._run.workdir}/checkpoints/best")
        ema = " --ema" if is_of_average(self._goal) else ""
        return (
            f"best of {step} steps: {best}, with {self._goal.name} {decimals(self._values[best])}: "
            f"gpt2-jax sample --model {path}{ema}"
        )

    def _values_so_far(self, start: int) -> dict[int, float]:
        """Returns {step: value} of the validations up to `start`, and that of the record."""
        assert self._goal is not None
        values = validated_values(self._run.workdir, self._goal.name)
        values = {step: value for step, value in values.items() if step <= start}
        record = read_record(self._store.directory)  # in case metrics.jsonl was lost
        if record and record.metric == self._run.config.checkpoint.best and record.step <= start:
            values.setdefault(record.step, record.value)
        return values

    def _best_of(self, steps: Any) -> int | None:
        """Returns the best of the steps that were validated; None in all processes but 0."""
        if self._goal is None:
            return None
        return self._goal.choose({s: self._values[s] for s in steps if s in self._values})

    def _set_damaged_aside(self, start: int) -> None:
        """Renames damaged checkpoints until the best is good; that of `start` is known to be."""
        while True:
            step = self._best_of(self._store.steps())
            step = broadcast_from_primary(-1 if step is None else step)
            if step in (-1, start):
                return
            try:
                problem = self._store.damage(step)
            except StorageError as error:  # it may be readable the next time
                if is_primary():
                    warn(str(error))
                return
            if not problem:
                return
            run_on_primary(lambda step=step, problem=problem: self._set_aside(step, problem))

    def _set_aside(self, step: int, problem: str) -> None:
        folder = self._store.directory / str(step)
        renamed = rename_damaged(folder)
        warn(
            f"checkpoint {folder}, the best, is damaged ({problem}): it is now {renamed.name}, and "
            "the best of the others counts; remove it once you have looked at it"
        )

    def _count(self) -> None:
        """Counts the validations since the best one; `ended` becomes true after too many."""
        patience, best = self._run.config.train.patience, self._best_of(self._values)
        stale = sum(step > (-1 if best is None else best) for step in self._values)
        self.ended = bool(broadcast_from_primary(int(0 < patience <= stale)))
