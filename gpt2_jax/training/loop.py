"""The training loop: one step after another, and after each step the hooks that are due."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax

from gpt2_jax.data.loader import device_batches
from gpt2_jax.errors import Preempted
from gpt2_jax.parallel.stop import StopRequest
from gpt2_jax.training.evaluation import Stopped
from gpt2_jax.training.goodput import DATA_WAIT, Goodput
from gpt2_jax.training.hooks import Hook
from gpt2_jax.training.run import Run
from gpt2_jax.training.saving import Saver
from gpt2_jax.training.state import TrainState
from gpt2_jax.training.step import (
    Metrics,
    StepNumbers,
    batch_sharding,
    compile_train_step,
    step_numbers,
)
from gpt2_jax.training.watchdog import Watchdog


class Loop:
    """Trains a run from a state to a step."""

    def __init__(
        self,
        run: Run,
        hooks: Sequence[Hook],
        saver: Saver,
        stop: StopRequest,
        watchdog: Watchdog,
        goodput: Goodput,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        """Takes what to call after the steps, and what can end them early.

        `ended` is asked after the hooks of a step, in every process alike; if it returns true, this
        step is the last, and the hooks that are due after the last step are called.
        """
        self._run, self._saver, self._stop = run, saver, stop
        self._watchdog, self._goodput, self._ended = watchdog, goodput, ended
        self._on_metrics = [hook for hook in hooks if not hook.needs_state]
        self._on_state = [hook for hook in hooks if hook.needs_state]

    def train(self, state: TrainState, stop_at: int) -> int:
        """Trains from `state` to step `stop_at`, and waits until the last save is committed.

        Returns:
          The last step, which is before `stop_at` if the run has ended early.

        Raises:
          Preempted: if the run was asked to stop, once the state is saved.
        """
        step = int(state.step)
        try:
            self._call_on_state([hook for hook in self._on_state if hook.at_start], step, state)
            if step >= stop_at or self._ended():
                return step
            train_step = self._compile()
            numbers = step_numbers(self._run.config, self._run.mesh)
            sharding = batch_sharding(self._run.mesh)
            with contextlib.closing(
                device_batches(self._run.setup.source, sharding, step)
            ) as batches:
                unread: Metrics | None = None  # of the step before, if no hook has read them yet
                while step < stop_at:
                    step += 1
                    self._watchdog.report(f"step {step}")
                    with self._goodput.measuring(DATA_WAIT):
                        batch = next(batches)
                    with jax.profiler.StepTraceAnnotation("train", step_num=step):
                        state, metrics = train_step(state, batch, numbers)
                    # The device computes this step while the host reads the metrics of the last.
                    if unread is not None:
                        self._call_on_metrics(step - 1, unread)
                    unread = metrics
                    stopping = self._stop.requested()
                    due = [hook for hook in self._on_state if hook.due(step)]
                    # The next step waits for these, so reading this one's metrics delays nothing.
                    if stopping or due:
                        self._call_on_metrics(step, metrics)
                        unread = None
                    if stopping:
                        raise Stopped
                    self._call_on_state(due, step, state)
                    if self._ended():
                        self._call_last(step, stop_at, state, metrics)
                        break
        except Stopped:  # after a step, or in the middle of a validation
            self._save_and_end(step, state)
        self._finish_saving(step)
        return step

    def _call_last(self, step: int, stop_at: int, state: TrainState, metrics: Metrics) -> None:
        """Calls the hooks of the last step for a step before it, but for those already called."""
        for hook in self._on_metrics:
            if stop_at in hook.at and not hook.due(step):
                hook.function(step, metrics)
        late = [hook for hook in self._on_state if stop_at in hook.at and not hook.due(step)]
        self._call_on_state(late, step, state)

    def _compile(self) -> Callable[[TrainState, Any, StepNumbers], tuple[TrainState, Metrics]]:
        run = self._run
        self._watchdog.report("compiling")
        with self._goodput.measuring("compilation"):
            return compile_train_step(
                run.config,
                run.optimizer,
                run.mesh,
                run.rules,
                run.abstract,
                weighted=run.setup.source.weighted,
                segmented=run.setup.source.segmented,
            )

    def _call_on_metrics(self, step: int, metrics: Metrics) -> None:
        """Calls the hooks that are due on a step's metrics, which waits for the step."""
        self._watchdog.report(f"step {step}")
        for hook in self._on_metrics:
            if hook.due(step):
                hook.function(step, metrics)

    def _call_on_state(self, hooks: Sequence[Hook], step: int, state: TrainState) -> None:
        """Calls hooks on the state, while the device trains nothing."""
        for hook in hooks:
            self._watchdog.report(f"the {hook.name} at step {step}")
            with self._goodput.measuring(hook.name):
                hook.function(step, state)

    def _save_and_end(self, step: int, state: TrainState) -> NoReturn:
        """Saves the state, unless this step is saved already, and ends the run."""
        self._watchdog.report(f"the save at step {step}")
        self._saver.save(step, state)
        self._finish_saving(step)
        raise Preempted(
            f"stopped and saved at step {step} of {self._run.config.train.total_steps}; "
            "run the same command again to resume"
        )

    def _finish_saving(self, step: int) -> None:
        self._watchdog.report(f"the end of the save at step {step}")
        self._saver.finish()
