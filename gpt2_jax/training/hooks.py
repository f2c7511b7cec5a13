"""What a run does between its steps: hooks, each called every so many steps.

To add one, write its function here or in a file of its own, and add its line to `make_hooks`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from gpt2_jax.parallel.distributed import on_every_host
from gpt2_jax.parallel.malloc import return_freed_memory
from gpt2_jax.training.bad_steps import BadSteps
from gpt2_jax.training.best import BestStep
from gpt2_jax.training.evaluation import Evaluation
from gpt2_jax.training.goodput import Goodput
from gpt2_jax.training.gradient_norms import norms_by_name
from gpt2_jax.training.progress import Progress
from gpt2_jax.training.run import Run
from gpt2_jax.training.saving import Saver
from gpt2_jax.training.state import TrainState
from gpt2_jax.training.step import Metrics
from gpt2_jax.training.throughput import Throughput
from gpt2_jax.training.trackers import Trackers

OnMetrics = Callable[[int, Metrics], None]
OnState = Callable[[int, TrainState], None]


@dataclasses.dataclass(frozen=True)
class Hook:
    """Calls a function every so many steps, in every process of the run.

    Attributes:
      name: what the watchdog and the goodput call it.
      every: steps from one call to the next; 0 means only after the steps in `at`.
      function: takes (step, metrics of that step), or (step, state after it) if `needs_state`.
      at: further steps after which it is due.
      at_start: whether to call it before the first step, too; only with `needs_state`.
      needs_state: whether it reads the state. The next step reuses the state's memory, so it waits
        for such a hook, whereas a hook on metrics runs while the device computes the next step.
    """

    name: str
    every: int
    function: Callable[[int, Any], None]
    at: tuple[int, ...] = ()
    at_start: bool = False
    needs_state: bool = False

    def due(self, step: int) -> bool:
        """Returns whether to call it after `step`."""
        return step in self.at or (self.every > 0 and step % self.every == 0)


def make_hooks(
    run: Run,
    *,
    start: int,
    stop_at: int,
    missed_validation: bool,
    trackers: Trackers,
    progress: Progress,
    saver: Saver,
    evaluation: Evaluation,
    best: BestStep,
    throughput: Throughput,
    goodput: Goodput,
    stack: contextlib.ExitStack,
) -> list[Hook]:
    """Returns the hooks of a run in the order in which they are called after a step.

    Args:
      run: what does not change during the run.
      start: the step that the run starts from.
      stop_at: the step after which it stops.
      missed_validation: whether the state at `start` has yet to be validated.
      trackers: where numbers go.
      progress: what the user sees.
      saver, evaluation, best, throughput, goodput: what some of the hooks call.
      stack: closes what a hook has opened when the run ends, by an exception too.
    """
    config, last = run.config, (stop_at,)
    log, checkpoint = config.log, config.checkpoint
    profile = Profile(run, start, stop_at, progress)
    stack.callback(profile.close)
    return [
        # On metrics: the device already computes the next step, unless a hook below is due.
        Hook("check", 1, BadSteps(run, progress.message).check),
        Hook("log", log.every, write_metrics(run, trackers, progress, throughput), at=(1, *last)),
        Hook("norms", log.norms_every, write_norms(trackers)),
        Hook("poll of the save", log.every, saver.poll),
        # On the state: the save comes before the validation, which a stop request can interrupt.
        Hook("profile", 0, profile.end, at=profile.ends_at, needs_state=True),
        Hook(
            "histograms",
            log.histograms_every,
            write_histograms(trackers),
            needs_state=True,
        ),
        Hook("save", checkpoint.every, saver.save, at=last, needs_state=True),
        Hook(
            "save",
            log.every if checkpoint.every_minutes else 0,
            saver.save_if_time,
            needs_state=True,
        ),
        Hook(
            "validation",
            config.eval.every,
            evaluation,
            at=last,
            at_start=missed_validation,
            needs_state=True,
        ),
        *(
            [
                Hook(
                    "best step",
                    config.eval.every,
                    best.after_validation(evaluation, saver),
                    at=last,
                    at_start=missed_validation,
                    needs_state=True,
                )
            ]
            if best.active
            else []
        ),
        Hook(
            "memory",
            config.eval.every,
            lambda step, _: return_freed_memory(),
            at_start=True,  # initialization leaves memory behind, too
            needs_state=True,
        ),
        # After all of these, so that its last line includes them.
        Hook(
            "goodput",
            log.goodput_every,
            lambda step, _: trackers.log(step, goodput.measure()),
            at=last,
            needs_state=True,
        ),
        # The trace begins with the next step and includes none of the above.
        Hook(
            "profile",
            0,
            profile.begin,
            at=profile.begins_at,
            at_start=start in profile.begins_at,
            needs_state=True,
        ),
    ]


def write_metrics(
    run: Run, trackers: Trackers, progress: Progress, throughput: Throughput
) -> OnMetrics:
    """Returns the hook function that writes and shows a step's loss, norm, rate and throughput."""

    def write(step: int, metrics: Metrics) -> None:
        values = {name: float(metrics[name]) for name in ("loss", "grad_norm", "learning_rate")}
        values |= throughput.measure(step)
        trackers.log(step, {"tokens": step * run.config.tokens_per_step, **values})
        progress.update(step, values)

    return write


def write_norms(trackers: Trackers) -> OnMetrics:
    """Returns the hook function that writes the gradient norm of each parameter and layer."""

    def write(step: int, metrics: Metrics) -> None:
        by_name = norms_by_name(metrics["grad_norms"])
        trackers.log(step, {f"grad_norm/{name}": norm for name, norm in by_name.items()})

    return write


def write_histograms(trackers: Trackers) -> OnState:
    """Returns the hook function that writes a histogram of every parameter."""

    def write(step: int, state: TrainState) -> None:
        leaves = jax.tree_util.tree_leaves_with_path(state.params)
        # Every process takes part in gathering, and the first has the trackers.
        arrays = {
            f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}": on_every_host(leaf)
            for path, leaf in leaves
        }
        trackers.histograms(step, arrays)

    return write


class Profile:
    """Records a profiler trace of `log.profile_steps` steps from step `log.profile_at` on.

    Attributes:
      begins_at: the step after which to call `begin`, if there is one.
      ends_at: the step after which to call `end`, if there is one.
    """

    def __init__(self, run: Run, start: int, stop_at: int, progress: Progress) -> None:
        """Shows a message if `log.profile_at` is not among the steps to train."""
        first, count = run.config.log.profile_at, run.config.log.profile_steps
        self._folder = str(run.workdir / "profile")
        self._trace = contextlib.ExitStack()
        self.begins_at: tuple[int, ...] = ()
        self.ends_at: tuple[int, ...] = ()
        if start < first <= stop_at:
            self.begins_at, self.ends_at = (first - 1,), (min(first - 1 + count, stop_at),)
        elif first >= 0 and start < stop_at:
            progress.message(
                f"no trace: log.profile_at={first} is not among the steps of this start, "
                f"{start + 1} to {stop_at}"
            )

    def begin(self, step: int, state: TrainState) -> None:
        """Begins the trace, once the steps before it have been computed."""
        jax.block_until_ready(state.params)
        self._trace.enter_context(jax.profiler.trace(self._folder))

    def end(self, step: int, state: TrainState) -> None:
        """Ends the trace, once its last step has been computed."""
        jax.block_until_ready(state.params)
        self._trace.close()

    def close(self) -> None:
        """Ends the trace if it is still being recorded, as in a run that was asked to stop."""
        self._trace.close()
