"""The validation of a run: its evaluators, their numbers, and validations that were missed."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.best_effort import warn_if_not_written
from gpt2_jax.parallel.distributed import broadcast_from_primary, is_primary
from gpt2_jax.parallel.stop import StopRequest
from gpt2_jax.training.metrics_file import last_evaluation
from gpt2_jax.training.optimizer import updates_made
from gpt2_jax.training.progress import Progress, decimals
from gpt2_jax.training.run import Evaluator, Run
from gpt2_jax.training.state import TrainState, evaluated_average
from gpt2_jax.training.trackers import Trackers
from gpt2_jax.training.watchdog import Watchdog


class Stopped(Exception):
    """Ends the loop, from wherever it is, after the run was asked to stop."""


class Evaluation:
    """Runs the evaluators, writes their numbers to the trackers and their texts to samples/.

    An array such as `eval/loss_by_position` goes to a file of its name, loss_by_position.json,
    which has the array of the last validation.

    Attributes:
      results: the numbers of the last validation, whether this start or an earlier one ran it.
    """

    def __init__(
        self,
        run: Run,
        trackers: Trackers,
        progress: Progress,
        stop: StopRequest,
        watchdog: Watchdog,
    ) -> None:
        """Reads the last validation from the workdir, and compiles nothing yet."""
        self._run, self._trackers, self._progress = run, trackers, progress
        self._stop, self._watchdog = stop, watchdog
        self._evaluators: Sequence[Evaluator] | None = None
        self.results, self._last_step = last_evaluation(run.workdir)

    def missed(self, start: int, stop_at: int) -> bool:
        """Returns whether the state that the run starts from has yet to be validated.

        That is so if an earlier start was stopped or killed between a save and its validation.
        Every process must call this. Process 0 decides, because it alone drops lines of
        metrics.jsonl on resume, and the others may have read them before.
        """
        every = self._run.config.eval.every
        due = start > 0 and (start >= stop_at or (every > 0 and start % every == 0))
        return due and broadcast_from_primary(self._last_step) < start

    def compile(self) -> None:
        """Makes the evaluators, which compile what they run; does nothing the second time."""
        if self._evaluators is None:
            run = self._run
            self._evaluators = run.setup.make_evaluators(run.abstract.params, run.mesh, run.rules)

    def __call__(self, step: int, state: TrainState) -> None:
        """Evaluates the parameters after `step`, and by the first evaluator their average, too.

        Numbers of the average are named `eval/ema_...`.

        Raises:
          Stopped: if the run is asked to stop meanwhile. No number is written then, and the next
            start validates this step.
        """
        self.compile()
        numbers: dict[str, float] = {}

        def tick() -> None:
            self._watchdog.report(f"the validation at step {step}")
            if self._stop.requested():
                raise Stopped

        for evaluator in self._evaluators or ():
            for name, value in evaluator(state.params, tick):
                self._watchdog.report(f"the validation at step {step}, after {name}")
                if isinstance(value, str):
                    self._write_sample(step, name, value)
                elif isinstance(value, np.ndarray):
                    self._write_array(step, name, value)
                else:
                    numbers[name] = value
        if state.ema is not None and int(updates_made(state.opt_state)):
            average = evaluated_average(self._run.config, state)
            for evaluator in (self._evaluators or ())[:1]:
                for name, value in evaluator(average, tick):
                    if not isinstance(value, (str, np.ndarray)):
                        numbers[f"eval/ema_{name.removeprefix('eval/')}"] = value
        self.results = numbers
        if numbers:
            self._trackers.log(step, numbers)
            listed = "  ".join(f"{name} {decimals(value)}" for name, value in numbers.items())
            self._progress.message(f"step {step}: {listed}")

    def _write_sample(self, step: int, name: str, text: str) -> None:
        self._trackers.text(step, name, text)
        if is_primary():
            folder = self._run.workdir / "samples"
            with warn_if_not_written(f"samples/{step}.txt"):
                folder.mkdir(exist_ok=True)
                write_file(folder / f"{step}.txt", f"{text}\n".encode())

    def _write_array(self, step: int, name: str, array_T: np.ndarray) -> None:
        """Writes {"step", the array's name: its numbers, null where they are not finite}."""
        if is_primary():
            name = name.removeprefix("eval/")
            numbers = [float(f"{x:.6g}") if np.isfinite(x) else None for x in array_T]
            with warn_if_not_written(f"{name}.json"):
                content = json.dumps({"step": step, name: numbers})
                write_file(self._run.workdir / f"{name}.json", f"{content}\n".encode())
