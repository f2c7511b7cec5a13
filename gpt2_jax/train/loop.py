"""The training loop: step, log, evaluate, save, stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from gpt2_jax.data.loader import device_batches
from gpt2_jax.errors import Preempted
from gpt2_jax.files.storage import nice_to_have
from gpt2_jax.model.flops import flops_per_token
from gpt2_jax.parallel.chips import chip_for
from gpt2_jax.parallel.distributed import agreed, is_primary
from gpt2_jax.parallel.stop import StopRequest
from gpt2_jax.train.bad_steps import BadSteps
from gpt2_jax.train.metrics import MetricsWriter, Throughput
from gpt2_jax.train.metrics_file import last_evaluation
from gpt2_jax.train.progress import Progress, decimals
from gpt2_jax.train.run import Evaluator, Run
from gpt2_jax.train.saving import Saver
from gpt2_jax.train.state import TrainState
from gpt2_jax.train.step import Metrics, batch_sharding, compile_train_step, norms_by_name
from gpt2_jax.train.watchdog import Watchdog


class Loop:
    """The steps of a run from its state on, and what is due between them."""

    def __init__(
        self,
        run: Run,
        saver: Saver,
        stop: StopRequest,
        writer: MetricsWriter,
        progress: Progress,
        stop_at: int,
        watchdog: Watchdog,
    ) -> None:
        self.run, self.config, self.workdir = run, run.config, run.workdir
        self.saver, self.stop, self.writer, self.progress = saver, stop, writer, progress
        self.stop_at, self.watchdog = stop_at, watchdog
        self.bad_steps = BadSteps(run)
        mesh = run.mesh
        chip = chip_for(mesh.devices.flat[0].device_kind)
        self.throughput = Throughput(
            self.config.tokens_per_step,
            flops_per_token(self.config.model),
            chip.peak_bf16_flops * mesh.size if chip else None,
        )

    def train(self, state: TrainState) -> dict[str, float]:
        """Steps from `state` to the end; returns the last validation's numbers."""
        run, start, total = self.run, int(state.step), self.config.train.total_steps
        results, evaluated_at = last_evaluation(self.workdir)
        # A run that was stopped or killed between the save and the validation makes up for it.
        # Process 0 may have dropped rows by now that another has still read.
        missed = start > 0 and self._evaluation_due(start) and agreed(evaluated_at) < start
        done = start >= self.stop_at
        if done:
            ended = "done" if start == total else "nothing to do up to --stop_at_step"
            self.progress.message(f"{ended}: {self.workdir} is at step {start} of {total}")
        if done and not missed:
            return results
        self.progress.message(f"from step {start} to {self.stop_at}: compiling")
        self.watchdog.doing("compiling")
        evaluators = run.setup.make_evaluators(run.abstract.params, run.mesh, run.rules)
        if missed:
            results = self._evaluate(start, state, evaluators)
        if not done:
            results = self._steps(state, evaluators)
        if not done and self.stop_at < total:
            self.progress.message(
                f"saved at step {self.stop_at} of {total}, as --stop_at_step asks; "
                "run the command without it to go on"
            )
        return results

    def _steps(self, state: TrainState, evaluators: Sequence[Evaluator]) -> dict[str, float]:
        config, run, start = self.config, self.run, int(state.step)
        results: dict[str, float] = {}
        train_step = compile_train_step(config, run.optimizer, run.mesh, run.rules, run.abstract)
        batches = device_batches(run.setup.source, batch_sharding(run.mesh), start)
        with contextlib.closing(batches), self._profiler(start) as profile:
            pending: Metrics | None = None
            for step in range(start + 1, self.stop_at + 1):
                self.watchdog.doing(f"step {step}")
                profile(step, pending)
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, metrics = train_step(state, next(batches))
                # The device computes this step while the host reads the one before.
                if pending is not None:
                    self._log(step - 1, pending)
                pending = metrics
                stopping = self.stop.requested()
                evaluate = self._evaluation_due(step) and not stopping
                histograms = _due(step, config.log.histograms_every)
                save = step == self.stop_at or _due(step, config.checkpoint.every)
                if evaluate or histograms or save or stopping:
                    self._log(step, pending)
                    pending = None
                if histograms:
                    self._write_histograms(step, state)
                if save:
                    self._save(step, state)
                if stopping:
                    self._end_early(step, state)
                if evaluate:
                    results = self._evaluate(step, state, evaluators)
        self.saver.finish()
        return results

    def _evaluation_due(self, step: int) -> bool:
        return step >= self.stop_at or _due(step, self.config.eval.every)

    def _log(self, step: int, metrics: Metrics) -> None:
        """Reads a step's metrics from the device, watches for bad numbers, writes what is due."""
        config = self.config
        self.watchdog.doing(f"step {step}")
        if skipped := self.bad_steps.check(step, metrics):
            self.progress.message(skipped)
        row: dict[str, float] = {}
        if step in (1, self.stop_at) or _due(step, config.log.every):
            values = {name: float(metrics[name]) for name in ("loss", "grad_norm", "learning_rate")}
            values |= self.throughput.measure(step)
            row = {"tokens": step * config.tokens_per_step, **values}
            self.saver.look()
            self.progress.update(step, values)
        if _due(step, config.log.norms_every):
            norms = norms_by_name(metrics["grad_norms"])
            row |= {f"grad_norm/{name}": norm for name, norm in norms.items()}
        if row:
            self.writer.write(step, row)

    def _evaluate(
        self, step: int, state: TrainState, evaluators: Sequence[Evaluator]
    ) -> dict[str, float]:
        numbers: dict[str, float] = {}

        def tick() -> None:
            self.watchdog.doing(f"the validation at step {step}")
            if self.stop.requested():  # the next start makes up for the validation
                self._end_early(step, state)

        with self.throughput.paused():
            for evaluator in evaluators:
                for name, value in evaluator(state.params, tick):
                    self.watchdog.doing(f"the validation at step {step}, after {name}")
                    if isinstance(value, str):
                        self._write_sample(step, name, value)
                    else:
                        numbers[name] = value
            if numbers:
                self.writer.write(step, numbers)
                shown = "  ".join(f"{name} {decimals(value)}" for name, value in numbers.items())
                self.progress.message(f"step {step}: {shown}")
        return numbers

    def _save(self, step: int, state: TrainState) -> None:
        self.watchdog.doing(f"the save of step {step}")
        with self.throughput.paused():
            self.writer.flush()
            self.saver.save(step, state)

    def _end_early(self, step: int, state: TrainState) -> NoReturn:
        """Ends the run as it was asked to; a step that has been saved is not saved again."""
        self._save(step, state)
        self.saver.finish()
        raise Preempted(
            f"stopped and saved at step {step} of {self.config.train.total_steps}; "
            "run the same command again to go on"
        )

    def _write_sample(self, step: int, name: str, text: str) -> None:
        self.writer.text(step, name, text)
        if is_primary():
            folder = self.workdir / "samples"
            with nice_to_have(f"samples/{step}.txt"):
                folder.mkdir(exist_ok=True)
                (folder / f"{step}.txt").write_text(text + "\n", encoding="utf-8")

    def _write_histograms(self, step: int, state: TrainState) -> None:
        if jax.process_count() > 1:  # the parameters are not all here
            return
        with self.throughput.paused():
            leaves = jax.tree_util.tree_leaves_with_path(state.params)
            arrays = {f"params/{_name(path)}": np.asarray(leaf) for path, leaf in leaves}
            self.writer.histograms(step, arrays)

    @contextlib.contextmanager
    def _profiler(self, start: int) -> Iterator[Callable[[int, Metrics | None], None]]:
        """A function to call before each step: it starts and ends the trace that was asked for."""
        first, count = self.config.log.profile_at, self.config.log.profile_steps
        if first >= 0 and not start < first <= self.stop_at:
            self.progress.message(f"no trace: log.profile_at={first} is not a step of this start")
        with contextlib.ExitStack() as trace:

            def before(step: int, pending: Metrics | None) -> None:
                if step == first:
                    trace.enter_context(jax.profiler.trace(str(self.workdir / "profile")))
                elif step == first + count:
                    jax.block_until_ready(pending)  # the last step of the trace may still run
                    trace.close()

            yield before


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
