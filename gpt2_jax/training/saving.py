"""Saves of a run's state; a failed save does not end the run, because the next may succeed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.best_effort import warn_if_not_written
from gpt2_jax.parallel.distributed import broadcast_from_primary, is_primary, run_on_primary
from gpt2_jax.training.run import Run
from gpt2_jax.training.state import TrainState, stored_params, without_params
from gpt2_jax.training.step import Metrics

_SAVED = "saved_step"  # a file in the workdir with the step of the newest checkpoint


def note_saved(workdir: Path, step: int) -> None:
    """Writes the step of the newest checkpoint to a file outside the folder of checkpoints."""
    path, content = workdir / _SAVED, f"{step}\n".encode()
    if is_primary():
        with warn_if_not_written(str(path)):
            if not path.exists() or path.read_bytes() != content:
                write_file(path, content)


def check_none_lost(workdir: Path) -> None:
    """Checks that a workdir without a checkpoint has never had one.

    Raises:
      StorageError: if it has, so that its checkpoints were removed or their disk is not mounted.
    """
    path = workdir / _SAVED

    def check() -> None:
        if path.exists():
            step = path.read_bytes().decode(errors="replace").strip()[:20]
            raise StorageError(
                f"{workdir} has saved step {step}, but {workdir}/checkpoints no longer has a "
                f"checkpoint: restore it, or remove {path} to start over"
            )

    run_on_primary(check)


class Saver:
    """Saves a run's state; each save is written in the background while training continues.

    Attributes:
      pending: the step that is being saved, or None.
    """

    def __init__(
        self,
        run: Run,
        store: CheckpointStore,
        warn: Callable[[str], None],
        flush: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        on_saved: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Prepares to save.

        Args:
          run: what does not change during the run.
          store: where to save.
          warn: shows the user a line.
          flush: called before a save, so that the metrics of a saved step are on disk, too.
          clock: returns seconds and never goes back.
          on_saved: called with the step of every save that is committed.
        """
        self._run, self._store, self._warn, self._flush = run, store, warn, flush
        self._on_saved = on_saved
        self._clock, self._last_time = clock, clock()
        self.pending: int | None = None
        self._failures: list[StorageError] = []  # in a row, up to now

    def save(self, step: int, state: TrainState) -> None:
        """Starts to save; only warns if it cannot start, or if the previous save failed.

        Raises:
          StorageError: after `checkpoint.max_failures` failed saves in a row.
        """
        self._flush()
        self._settle()
        self._last_time = self._clock()
        meta = {
            "step": step,
            "config": config_lib.to_dict(self._run.config),
            "tokenizer": dict(self._run.setup.tokenizer),
            "data_fingerprint": self._run.setup.data_fingerprint,
        }
        if self._run.base is not None:
            meta["base"] = self._run.base._asdict()
        params = stored_params(self._run.config, state.params)
        try:
            self._store.save(step, params, without_params(state), meta)
        except StorageError as error:
            self._failed(error)
        else:
            self.pending = step

    def save_if_new(self, step: int, state: TrainState) -> None:
        """Saves unless this step is saved already, or is being saved."""
        if not broadcast_from_primary(int(step in (self.pending, *self._store.steps()))):
            self.save(step, state)

    def save_if_time(self, step: int, state: TrainState) -> None:
        """Saves if `checkpoint.every_minutes` have passed since the last save.

        Every process must call this at the same steps; the clock of process 0 decides.
        """
        minutes = (self._clock() - self._last_time) / 60
        if broadcast_from_primary(int(minutes >= self._run.config.checkpoint.every_minutes)):
            self.save(step, state)

    def poll(self, step: int, metrics: Metrics) -> None:
        """Notes the end of a save in the background, and removes what a failed one has written."""
        if self.pending is not None and not self._store.saving():
            self._settle()

    def finish(self) -> None:
        """Waits until the last save is committed.

        Raises:
          StorageError: if it failed.
        """
        self._settle(last=True)
        if self._failures:
            raise StorageError(f"{self._failures[-1]}{self._newest_kept()}")

    def _settle(self, *, last: bool = False) -> None:
        """Waits until the save in progress is committed or has failed, and records which."""
        if self.pending is None:
            return
        step, self.pending = self.pending, None
        try:
            self._store.wait()
        except StorageError as error:
            self._failed(error, last=last)
        else:
            self._failures = []
            note_saved(self._run.workdir, step)
            self._on_saved(step)

    def _newest_kept(self) -> str:
        steps = self._store.steps()
        newest = f"the newest checkpoint is of step {steps[0]}" if steps else "no checkpoint exists"
        return f"; {newest}: fix the cause and run the same command again to resume"

    def _failed(self, error: StorageError, *, last: bool = False) -> None:
        self._failures.append(error)
        most = self._run.config.checkpoint.max_failures
        if len(self._failures) >= most:
            raise StorageError(
                f"{error}: failure {len(self._failures)} in a row{self._newest_kept()}"
            )
        if not last:
            count = f"failure {len(self._failures)} of {most} in a row"
            self._warn(f"warning: {error} ({count}; training continues until the next save)")
