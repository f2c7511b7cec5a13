"""A run from its start to its end: checks the config, restores the state and starts the loop.

Batches, evaluators and the way to read a model to start from are passed in as a `Setup`, because
they come from packages above this one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.formats.base import check_same, fingerprint, lasting_name
from gpt2_jax.formats.load import open_model
from gpt2_jax.formats.model import Base
from gpt2_jax.model.flops import flops_per_token
from gpt2_jax.model.trainable import joined
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import chip_for
from gpt2_jax.parallel.distributed import (
    broadcast_from_primary,
    check_shared_folder,
    is_primary,
    run_on_primary,
)
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.parallel.stop import StopRequest
from gpt2_jax.training.best import BestStep
from gpt2_jax.training.evaluation import Evaluation
from gpt2_jax.training.goodput import Goodput
from gpt2_jax.training.hooks import make_hooks
from gpt2_jax.training.loop import Loop
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.progress import Progress
from gpt2_jax.training.rewind import check_rates_so_far
from gpt2_jax.training.run import Run, Setup
from gpt2_jax.training.saving import Saver, check_none_lost, note_saved
from gpt2_jax.training.state import (
    TrainState,
    abstract_state,
    init_state,
    stored_params,
    without_params,
    without_stored,
)
from gpt2_jax.training.throughput import Throughput
from gpt2_jax.training.trackers import Trackers, open_trackers
from gpt2_jax.training.watchdog import Watchdog
from gpt2_jax.training.workdir import (
    make_workdir,
    note_other_files,
    read_run_config,
    write_run_config,
)


class Trainer:
    """Trains one run in one workdir.

    Attributes:
      constants: what does not change during the run.
    """

    def __init__(self, config: Config, workdir: str | Path, setup: Setup) -> None:
        """Checks the config against the workdir and the devices, and changes nothing.

        Raises:
          UserError: for a workdir of another config, a batch or model that the mesh does not
            divide, or a `train.init_from` that is not a model of this shape.
        """
        folder = resolve_path(workdir, "--workdir")
        saved = read_run_config(folder)
        if saved is not None:
            config_lib.check_resume(saved, config, folder)
        else:
            note_other_files(folder)
        mesh, rules = mesh_lib.make_mesh(setup.mesh or config.mesh), Rules()
        mesh_lib.check_batch(config.train, mesh)
        optimizer = make_optimizer(config)
        abstract = abstract_state(config, optimizer, mesh, rules)
        steps = CheckpointStore(folder / "checkpoints", read_only=True).steps()
        has_saved = broadcast_from_primary(len(steps)) > 0
        self._initial_params, base = None, None
        name, adapts = config.train.init_from, config.model.lora_rank > 0
        if name and (adapts or not has_saved):  # no checkpoint has the base of adapters
            wanted = without_stored(config, abstract.params) if adapts else abstract.params
            self._initial_params = setup.read_params(name, wanted)
            if adapts:
                found = fingerprint(self._initial_params, config.model)
                base = Base(lasting_name(name, open_model), found)
        self.constants = Run(config, folder, setup, mesh, rules, optimizer, abstract, base)

    def run(self, stop_at_step: int | None = None) -> dict[str, float]:
        """Trains to the end, or to `stop_at_step`.

        Returns:
          `step`, where the run now stands, and the last validation's numbers; with
          `checkpoint.best`, also `best_step`.

        Raises:
          UserError: if another trainer is using the workdir, or has trained there on other data.
          Preempted: after SIGINT or SIGTERM, once the state is saved.
          NumbersWentBad: after `train.max_bad_steps` skipped steps in a row.
          StorageError: if no checkpoint can be read or written.
        """
        run, config = self.constants, self.constants.config
        total = config.train.total_steps
        stop_at = total if stop_at_step is None else min(stop_at_step, total)
        goodput = Goodput()
        make_workdir(run.workdir)
        with contextlib.ExitStack() as stack:
            with goodput.measuring("startup"):
                lock = lock_folder(run.workdir, f"--workdir {run.workdir}")
                stack.callback(lock.release)
                run_on_primary(lock.acquire)
                watchdog = stack.enter_context(Watchdog(config.train.hang_timeout))
                check_shared_folder(run.workdir)
                store = self._open_store()
                stack.callback(store.close)
                stop = StopRequest()
                stack.callback(stop.close)
                state = self._resume_or_init(store)
                start = int(state.step)
                if start:  # a state of step 0 is not from a checkpoint
                    stop.note_saved(start)
                run_on_primary(lambda: write_run_config(run.workdir, config))
                trackers = self._open_trackers(start)
                stack.callback(trackers.close)
                progress = stack.enter_context(Progress(total, start, enabled=is_primary()))
                best = BestStep(run, store, start)

                def on_saved(step: int) -> None:
                    stop.note_saved(step)
                    best.settle()

                saver = Saver(run, store, progress.message, trackers.flush, on_saved=on_saved)
                evaluation = Evaluation(run, trackers, progress, stop, watchdog)
                missed_validation = evaluation.missed(start, stop_at)
            if start >= stop_at:
                status = "done" if start == total else "nothing to do up to --stop_at_step"
                progress.message(f"{status}: {run.workdir} is at step {start} of {total}")
            if (start < stop_at and not best.ended) or missed_validation:
                best.forget()
                progress.message(f"from step {start} to {stop_at}: compiling")
                watchdog.report("compiling")
                with goodput.measuring("compilation"):
                    evaluation.compile()
            hooks = make_hooks(
                run,
                start=start,
                stop_at=stop_at,
                missed_validation=missed_validation,
                trackers=trackers,
                progress=progress,
                saver=saver,
                evaluation=evaluation,
                best=best,
                throughput=_throughput(run, goodput),
                goodput=goodput,
                stack=stack,
            )
            loop = Loop(run, hooks, saver, stop, watchdog, goodput, ended=lambda: best.ended)
            step = loop.train(state, stop_at)
            if is_primary():
                self._say_how_it_ended(progress, best, start, step)
            return {"step": step, **evaluation.results, **best.result()}

    def _say_how_it_ended(self, progress: Progress, best: BestStep, start: int, step: int) -> None:
        """Shows why the run stands at `step`, which this start has trained to from `start`."""
        total = self.constants.config.train.total_steps
        early = best.ended and step < total
        if early and step == start:
            progress.message(
                f"done: {self.constants.workdir} ended at step {step} of {total}, because "
                f"{best.why_ended()}; a larger train.patience goes on"
            )
        elif early:
            progress.message(f"ended at step {step} of {total}: {best.why_ended()}")
        elif start < step < total:
            progress.message(
                f"saved at step {step} of {total}, as --stop_at_step asks; run the command "
                "without it to continue"
            )
        if best.active and (early or step == total):
            progress.message(best.summary(step))

    def _open_store(self) -> CheckpointStore:
        checkpoint = self.constants.config.checkpoint
        return CheckpointStore(
            self.constants.workdir / "checkpoints",
            keep=None if checkpoint.best else checkpoint.keep,  # `BestStep` removes steps itself
            keep_every=checkpoint.keep_every,
        )

    def _open_trackers(self, start: int) -> Trackers:
        """Opens the trackers, in process 0 alone."""
        opened = [Trackers([])]
        run = self.constants
        run_on_primary(lambda: opened.append(open_trackers(run.config, run.workdir, start)))
        return opened[-1]

    def _resume_or_init(self, store: CheckpointStore) -> TrainState:
        """Returns the state to start from: the first of these that exists.

        1. the newest good checkpoint of this workdir;
        2. the parameters of the model that `train.init_from` names;
        3. a fresh initialization from `train.seeds.init`.
        """
        run = self.constants
        if (step := store.newest_good()) is not None:
            self._check_continues(store.meta(step))
            note_saved(run.workdir, step)  # in case the start that saved it was killed before
            shapes = run.abstract
            stored = stored_params(run.config, shapes.params)
            params, rest = store.restore(step, stored, without_params(shapes))
            if run.base is not None:
                params = joined(params, self._initial_params)
            return shapes._replace(params=params, **rest)
        check_none_lost(run.workdir)
        state = init_state(run.config, run.optimizer, run.abstract)
        if self._initial_params is not None:
            new = stored_params(run.config, state.params) if run.base else {}
            state = state._replace(params=joined(new, self._initial_params))
        return state

    def _check_continues(self, meta: Mapping[str, Any]) -> None:
        """Refuses a checkpoint of another config or other data, in case config.json was lost."""
        run = self.constants
        # Two tokenizers of the same name and size can give the same ids another meaning.
        if meta["tokenizer"] != dict(run.setup.tokenizer):
            raise UserError(
                f"the {run.config.data.tokenizer} tokenizer of the data is not the one that "
                f"{run.workdir} was trained with: its ids mean other text; restore the data, or "
                "choose another --workdir"
            )
        if run.base is not None and meta.get("base"):
            name = f"train.init_from={run.config.train.init_from}"
            check_same(Base(**meta["base"]), run.base.fingerprint, str(run.workdir), name)
        saved = config_lib.from_dict(meta["config"])
        config_lib.check_resume(saved, run.config, run.workdir)
        # Folders may have moved, so the shards are compared by their fingerprint.
        before, now = meta["data_fingerprint"], run.setup.data_fingerprint
        if before != now:
            raise UserError(
                f"the data of {_data(run.config)} (fingerprint {now[:12]}) are not those that "
                f"{run.workdir} was trained on, {_data(saved)} (fingerprint {before[:12]}): "
                "restore those, name where they are now, or choose another --workdir"
            )
        check_rates_so_far(saved, run.config, meta["step"], run.workdir)


def _data(config: Config) -> str:
    """Returns the knob that names the data, with its value."""
    data = config.data
    return f"data.mixture={data.mixture}" if data.mixture else f"data.path={data.path}"


def _throughput(run: Run, goodput: Goodput) -> Throughput:
    chip = chip_for(run.mesh.devices.flat[0].device_kind)
    return Throughput(
        run.config.tokens_per_step,
        flops_per_token(run.config.model),
        chip.peak_bf16_flops * run.mesh.size if chip else None,
        goodput,
    )
