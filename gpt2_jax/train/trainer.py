"""A run from its start to its end: checks it, finds its state, and hands both to the loop.

The trainer is handed what the rooms above it know: batches, evaluators and how to read a model to
start from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.files.lock import make_lock
from gpt2_jax.files.storage import is_remote, storage_path, write_whole
from gpt2_jax.formats.load import read_run_config
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.distributed import agreed, check_shared, is_primary, on_primary
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.parallel.stop import StopRequest
from gpt2_jax.train.loop import Loop
from gpt2_jax.train.metrics import MetricsWriter
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.progress import Progress
from gpt2_jax.train.run import Run, Setup
from gpt2_jax.train.saving import Saver, check_none_lost, note_saved
from gpt2_jax.train.state import TrainState, abstract_state, init_state, without_params
from gpt2_jax.train.watchdog import Watchdog


class Trainer:
    """One run in one workdir."""

    def __init__(self, config: Config, workdir: str | Path, setup: Setup) -> None:
        """Checks the config against the workdir and the devices, and changes neither.

        Raises:
          UserError: for a workdir of another config, a batch or model the mesh does not divide, or
            a `train.init_from` that is no model of this shape.
        """
        folder = storage_path(workdir, "--workdir")
        saved = read_run_config(folder)
        if saved is not None:
            config_lib.check_resume(saved, config, folder)
        mesh, rules = mesh_lib.make_mesh(config.mesh), Rules()
        mesh_lib.check_batch(config.train, mesh)
        optimizer = make_optimizer(config)
        abstract = abstract_state(config, optimizer, mesh, rules)
        self.fixed = Run(config, folder, setup, mesh, rules, optimizer, abstract)
        self._initial_params = None
        steps = CheckpointStore(folder / "checkpoints", read_only=True).steps()
        has_saved = agreed(len(steps)) > 0
        if config.train.init_from and not has_saved:
            self._initial_params = setup.read_params(config.train.init_from, abstract.params)

    def run(self, stop_at_step: int | None = None) -> dict[str, float]:
        """Trains to the end, or to `stop_at_step`.

        Returns:
          `step`, where the run now stands, and the last validation's numbers.

        Raises:
          UserError: if another trainer has the workdir, or trained there on other data.
          Preempted: after SIGINT or SIGTERM, once the state is saved.
          NumbersWentBad: after `train.max_bad_steps` skipped steps in a row.
          StorageError: if no checkpoint can be read or written.
        """
        run, config = self.fixed, self.fixed.config
        total = config.train.total_steps
        self._make_workdir()
        with contextlib.ExitStack() as stack:
            lock = make_lock(run.workdir)
            stack.callback(lock.release)
            on_primary(lock.acquire)
            watchdog = stack.enter_context(Watchdog(config.train.hang_timeout))
            check_shared(run.workdir)
            store = CheckpointStore(run.workdir / "checkpoints", keep=config.checkpoint.keep)
            stack.callback(store.close)
            stop = StopRequest()
            stack.callback(stop.close)
            state = self._resume_or_init(store)
            on_primary(self._write_config)
            start = int(state.step)
            writer = MetricsWriter(run.workdir)
            on_primary(lambda: writer.open(start, tensorboard=config.log.tensorboard))
            stack.callback(writer.close)
            progress = stack.enter_context(Progress(total, start, enabled=is_primary()))
            stop_at = total if stop_at_step is None else min(stop_at_step, total)
            saver = Saver(run, store, progress.message)
            results = Loop(run, saver, stop, writer, progress, stop_at, watchdog).train(state)
            return {"step": max(start, stop_at), **results}

    def _resume_or_init(self, store: CheckpointStore) -> TrainState:
        """The state to start from: the first of these that there is.

        1. the newest good checkpoint of this workdir;
        2. the parameters of the model that `train.init_from` names;
        3. a fresh initialization from `train.seed`.
        """
        run = self.fixed
        if (step := store.newest_good()) is not None:
            self._check_continues(store.meta(step))
            note_saved(run.workdir, step)  # the start that saved it may not have come to that
            shapes = run.abstract
            params, rest = store.restore(step, shapes.params, without_params(shapes))
            return shapes._replace(params=params, **rest)
        check_none_lost(run.workdir)
        state = init_state(run.config, run.optimizer, run.abstract)
        if self._initial_params is not None:
            state = state._replace(params=self._initial_params)
        return state

    def _check_continues(self, meta: Mapping[str, Any]) -> None:
        """Refuses a checkpoint of another config or other data: config.json may have been lost."""
        run = self.fixed
        # Two may have the same name and size, and even the same shards, and mean other text.
        if meta["tokenizer"] != dict(run.setup.tokenizer):
            raise UserError(
                f"the {run.config.data.tokenizer} tokenizer of the data is not the one that "
                f"{run.workdir} was trained with: its ids mean other text; put the data back as it "
                "was, or choose another --workdir"
            )
        saved = config_lib.from_dict(meta["config"])
        # Folders may have moved; what is in them is compared by its fingerprint.
        saved = dataclasses.replace(saved, data=run.config.data)
        config_lib.check_resume(saved, run.config, run.workdir)
        if meta["data_fingerprint"] != run.setup.data_fingerprint:
            data = run.config.data
            named = f"mixture={data.mixture}" if data.mixture else f"path={data.path}"
            raise UserError(
                f"the shards in data.{named} are not those that {run.workdir} was trained on; put "
                "them back, or choose another --workdir"
            )

    def _make_workdir(self) -> None:
        workdir = self.fixed.workdir
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            writable = is_remote(workdir) or os.access(workdir, os.W_OK)
        except OSError as error:
            raise UserError(f"can't make --workdir {workdir}: {error.strerror}") from error
        if not writable:
            raise UserError(f"can't write in --workdir {workdir}: permission denied")

    def _write_config(self) -> None:
        path = self.fixed.workdir / "config.json"
        content = (json.dumps(config_lib.to_dict(self.fixed.config), indent=2) + "\n").encode()
        if not path.exists() or path.read_bytes() != content:  # a full disk may take no more
            write_whole(path, content)
