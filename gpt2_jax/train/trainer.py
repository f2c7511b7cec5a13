"""The training loop: init or resume, step, evaluate, save, log.

The trainer is handed what the rooms above it know: batches, evaluators and how to read a model to
start from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.load import read_run_config
from gpt2_jax.checkpoint.storage import is_remote, storage_path, write_whole
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config
from gpt2_jax.data.loader import BatchSource, device_batches
from gpt2_jax.errors import NumbersWentBad, Preempted, StorageError, UserError
from gpt2_jax.model.flops import flops_per_token
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import chip_for
from gpt2_jax.parallel.distributed import StopRequest, agreed, check_shared, is_primary
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.train.metrics import (
    MetricsWriter,
    Progress,
    Throughput,
    decimals,
)
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.rows import last_evaluation
from gpt2_jax.train.state import TrainState, abstract_state, init_state
from gpt2_jax.train.step import Metrics, batch_sharding, compile_train_step

# Looks at parameters and yields (name, value): numbers become metrics, texts become samples.
Evaluator = Callable[[Any], Iterator[tuple[str, float | str]]]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run needs beside its config.

    Attributes:
      source: batches by number.
      make_evaluators: (abstract params on the mesh, mesh, rules) -> what to run at every
        validation.
      tokenizer: `Tokenizer.to_dict()`, stored with every checkpoint.
      data_fingerprint: tells the shards from others, so that a run does not go on with those.
      read_params: reads the model `train.init_from` names onto the abstract parameters' shardings.
    """

    source: BatchSource
    make_evaluators: Callable[..., Sequence[Evaluator]]
    tokenizer: Mapping[str, Any]
    data_fingerprint: str
    read_params: Callable[[str, Any], Any]


class Trainer:
    """One run in one workdir: checks it, finds its state, and hands both to the loop."""

    def __init__(self, config: Config, workdir: str | Path, setup: Setup) -> None:
        """Checks the config against the workdir and the devices, and changes neither.

        Raises:
          UserError: for a workdir of another config, a batch or model the mesh does not divide, or
            a `train.init_from` that is no model of this shape.
        """
        self.config, self.setup = config, setup
        self.workdir = storage_path(workdir, "--workdir")
        saved = read_run_config(self.workdir)
        if saved is not None:
            config_lib.check_resume(saved, config, self.workdir)
        self.mesh, self.rules = mesh_lib.make_mesh(config.mesh), Rules()
        mesh_lib.check_batch(config.train, self.mesh)
        self.optimizer = make_optimizer(config)
        self.abstract = abstract_state(config, self.optimizer, self.mesh, self.rules)
        # Whole or not: a run that has saved before never silently starts over.
        folders = (self.workdir / "checkpoints").glob("*")
        self.has_saved = any(folder.name.isdigit() for folder in folders)
        self.initial_params = None
        if config.train.init_from and not self.has_saved:
            read = setup.read_params
            self.initial_params = read(config.train.init_from, self.abstract.params)

    def run(self, stop_at_step: int | None = None) -> dict[str, float]:
        """Trains to the end, or to `stop_at_step`.

        Returns:
          `step`, where the run now stands, and the last validation's numbers.

        Raises:
          Preempted: after SIGINT or SIGTERM, once the state is saved.
          NumbersWentBad: after `train.max_bad_steps` skipped steps in a row.
          StorageError: if no checkpoint can be read or written.
        """
        config, total = self.config, self.config.train.total_steps
        self._make_workdir()
        store = CheckpointStore(self.workdir / "checkpoints", keep=config.checkpoint.keep)
        with contextlib.ExitStack() as stack:
            stack.callback(store.close)
            stop = StopRequest()
            stack.callback(stop.close)
            state = self._resume_or_init(store)
            self._write_config()
            start = int(state.step)
            writer = MetricsWriter(
                self.workdir,
                tensorboard=config.log.tensorboard,
                start_step=start,
                enabled=is_primary(),
            )
            stack.callback(writer.close)
            progress = stack.enter_context(Progress(total, start, enabled=is_primary()))
            stop_at = total if stop_at_step is None else min(stop_at_step, total)
            results = _Loop(self, store, stop, writer, progress, stop_at).run(state)
            return {"step": max(start, stop_at), **results}

    def _resume_or_init(self, store: CheckpointStore) -> TrainState:
        """The state to start from: the first of these that there is.

        1. the newest checkpoint of this workdir;
        2. the parameters of the model that `train.init_from` names;
        3. a fresh initialization from `train.seed`.
        """
        steps = store.steps()
        step = agreed(steps[0] if steps else -1)
        if step >= 0:
            meta = store.meta(step)
            if meta["data_fingerprint"] != self.setup.data_fingerprint:
                data = self.config.data
                named = f"mixture={data.mixture}" if data.mixture else f"path={data.path}"
                raise UserError(
                    f"the shards in data.{named} are not those that "
                    f"{self.workdir} was trained on; put them back, or choose another --workdir"
                )
            params, rest = store.restore(step, self.abstract.params, _rest(self.abstract))
            return self.abstract._replace(params=params, **rest)
        if self.has_saved:
            raise StorageError(
                f"no checkpoint in {store.directory} is whole; move the folder away to start over"
            )
        state = init_state(self.config, self.optimizer, self.abstract)
        if self.initial_params is not None:
            state = state._replace(params=self.initial_params)
        return state

    def _make_workdir(self) -> None:
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            writable = is_remote(self.workdir) or os.access(self.workdir, os.W_OK)
        except OSError as error:
            raise UserError(f"can't make --workdir {self.workdir}: {error.strerror}") from error
        if not writable:
            raise UserError(f"can't write in --workdir {self.workdir}: permission denied")
        check_shared(self.workdir)

    def _write_config(self) -> None:
        if not is_primary():
            return
        text = json.dumps(config_lib.to_dict(self.config), indent=2) + "\n"
        write_whole(self.workdir / "config.json", text.encode())


class _Loop:
    """The steps of a run from its state on, and what is due between them."""

    def __init__(
        self,
        trainer: Trainer,
        store: CheckpointStore,
        stop: StopRequest,
        writer: MetricsWriter,
        progress: Progress,
        stop_at: int,
    ) -> None:
        self.trainer, self.config, self.workdir = trainer, trainer.config, trainer.workdir
        self.store, self.stop, self.writer, self.progress = store, stop, writer, progress
        self.stop_at = stop_at
        mesh = trainer.mesh
        chip = chip_for(mesh.devices.flat[0].device_kind)
        self.throughput = Throughput(
            self.config.tokens_per_step,
            flops_per_token(self.config.model),
            chip.peak_bf16_flops * mesh.size if chip else None,
        )

    def run(self, state: TrainState) -> dict[str, float]:
        """Steps from `state` to the end; returns the last validation's numbers."""
        config, trainer = self.config, self.trainer
        start, total = int(state.step), config.train.total_steps
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
        evaluators = trainer.setup.make_evaluators(
            trainer.abstract.params, trainer.mesh, trainer.rules
        )
        if missed:
            results = self._evaluate(start, state, evaluators)
        if done:
            return results
        train_step = compile_train_step(
            config, trainer.optimizer, trainer.mesh, trainer.rules, trainer.abstract
        )
        batches = device_batches(trainer.setup.source, batch_sharding(trainer.mesh), start)
        with contextlib.closing(batches), self._profiler(start) as profile:
            pending: Metrics | None = None
            for step in range(start + 1, self.stop_at + 1):
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
                save = stopping or step == self.stop_at or _due(step, config.checkpoint.every)
                if evaluate or histograms or save:
                    self._log(step, pending)
                    pending = None
                if histograms:
                    self._write_histograms(step, state)
                if save:
                    self._save(step, state)
                if evaluate:
                    results = self._evaluate(step, state, evaluators)
                if stopping:
                    self.store.wait()
                    raise Preempted(
                        f"stopped and saved at step {step} of {total}; "
                        "run the same command again to go on"
                    )
        self.store.wait()
        if self.stop_at < total:
            self.progress.message(
                f"saved at step {self.stop_at} of {total}, as --stop_at_step asks; "
                "run the command without it to go on"
            )
        return results

    def _evaluation_due(self, step: int) -> bool:
        return step >= self.stop_at or _due(step, self.config.eval.every)

    def _log(self, step: int, metrics: Metrics) -> None:
        """Reads a step's metrics from the device, watches for bad numbers, writes what is due."""
        config = self.config
        bad_steps = int(metrics["bad_steps"])
        if bad_steps >= config.train.max_bad_steps:
            raise NumbersWentBad(
                f"the loss or gradient was not finite in {bad_steps} steps in a row, up to step "
                f"{step}; the parameters are as before them: lower schedule.learning_rate, or look "
                "at the data"
            )
        if bad_steps:
            self.progress.message(f"step {step}: loss or gradient not finite, update skipped")
        row: dict[str, float] = {}
        if step in (1, self.stop_at) or _due(step, config.log.every):
            values = {name: float(metrics[name]) for name in ("loss", "grad_norm", "learning_rate")}
            values |= self.throughput.measure(step)
            row = {"tokens": step * config.tokens_per_step, **values}
            self.progress.update(step, values)
        if _due(step, config.log.norms_every):
            row |= _by_layer("grad_norm", metrics["grad_norms"])
        if row:
            self.writer.write(step, row)

    def _evaluate(
        self, step: int, state: TrainState, evaluators: Sequence[Evaluator]
    ) -> dict[str, float]:
        numbers: dict[str, float] = {}
        with self.throughput.paused():
            for evaluator in evaluators:
                for name, value in evaluator(state.params):
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
        meta = {
            "step": step,
            "config": config_lib.to_dict(self.config),
            "tokenizer": dict(self.trainer.setup.tokenizer),
            "data_fingerprint": self.trainer.setup.data_fingerprint,
        }
        with self.throughput.paused():
            self.writer.flush()
            self.store.save(step, state.params, _rest(state), meta)

    def _write_sample(self, step: int, name: str, text: str) -> None:
        self.writer.text(step, name, text)
        if is_primary():
            folder = self.workdir / "samples"
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


def _rest(state: TrainState) -> dict[str, Any]:
    """All but the parameters, which are stored apart so that they can be read alone."""
    return {name: value for name, value in state._asdict().items() if name != "params"}


def _by_layer(prefix: str, norms: Mapping[str, Any]) -> dict[str, float]:
    """{`prefix/name` or `prefix/layer/name`: norm} from [L] and scalar arrays."""
    row: dict[str, float] = {}
    for name, value in norms.items():
        array = np.asarray(value)
        if array.ndim == 0:
            row[f"{prefix}/{name}"] = float(array)
        else:
            leaf = name.removeprefix("h/")
            row |= {f"{prefix}/{leaf}/{i}": float(x) for i, x in enumerate(array)}
    return row
