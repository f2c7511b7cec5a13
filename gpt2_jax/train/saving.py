"""Saves a run's state, and goes on when the disk is full: there may be room the next time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.files.storage import nice_to_have, write_whole
from gpt2_jax.parallel.distributed import is_primary, on_primary
from gpt2_jax.train.run import Run
from gpt2_jax.train.state import TrainState, without_params

_SAVED = "saved_step"  # in the workdir: the step of the newest checkpoint


def note_saved(workdir: Path, step: int) -> None:
    """Leaves a note outside the folder of checkpoints of the newest that is there."""
    path, content = workdir / _SAVED, f"{step}\n".encode()
    if is_primary():
        with nice_to_have(str(path)):
            if not path.exists() or path.read_bytes() != content:
                write_whole(path, content)


def check_none_lost(workdir: Path) -> None:
    """Call it where no checkpoint is found, before a run starts from nothing.

    Raises:
      StorageError: if there have been checkpoints: they were removed, or their disk is not there.
    """
    path = workdir / _SAVED

    def check() -> None:
        if path.exists():
            step = path.read_bytes().decode(errors="replace").strip()[:20]
            raise StorageError(
                f"{workdir} has saved step {step}, but {workdir}/checkpoints has no checkpoint any "
                f"more: put it back, or remove {path} to start over"
            )

    on_primary(check)


class Saver:
    """The saves of a run; each is written in the background, while training goes on."""

    def __init__(self, run: Run, store: CheckpointStore, tell: Callable[[str], None]) -> None:
        """Takes the store, and whom to tell of a save that failed."""
        self._run, self._store, self._tell = run, store, tell
        self._most = run.config.checkpoint.max_failures
        self._pending: int | None = None  # the step that is being saved
        self._failures: list[StorageError] = []  # in a row, up to now

    def save(self, step: int, state: TrainState) -> None:
        """Begins to save; that this can't begin, or that the save before failed, is only told.

        Raises:
          StorageError: after `checkpoint.max_failures` failed saves in a row.
        """
        self._settle()
        meta = {
            "step": step,
            "config": config_lib.to_dict(self._run.config),
            "tokenizer": dict(self._run.setup.tokenizer),
            "data_fingerprint": self._run.setup.data_fingerprint,
        }
        try:
            self._store.save(step, state.params, without_params(state), meta)
        except StorageError as error:
            self._failed(error)
        else:
            self._pending = step

    def look(self) -> None:
        """If the save in progress has ended by now, tells how: one that failed leaves its room."""
        if self._pending is not None and not self._store.saving():
            self._settle()

    def finish(self) -> None:
        """Waits until the last save is committed.

        Raises:
          StorageError: if it failed.
        """
        self._settle(goes_on=False)
        if self._failures:
            raise StorageError(f"{self._failures[-1]}{self._kept()}")

    def _settle(self, *, goes_on: bool = True) -> None:
        """Waits until the save in progress is committed or has failed."""
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        try:
            self._store.wait()
        except StorageError as error:
            self._failed(error, goes_on=goes_on)
        else:
            self._failures = []
            note_saved(self._run.workdir, step)

    def _kept(self) -> str:
        steps = self._store.steps()
        newest = f"the newest checkpoint is of step {steps[0]}" if steps else "there is none there"
        return f"; {newest}: mend that and run the same command again to go on"

    def _failed(self, error: StorageError, *, goes_on: bool = True) -> None:
        self._failures.append(error)
        if len(self._failures) >= self._most:
            raise StorageError(f"{error}: failure {len(self._failures)} in a row{self._kept()}")
        if goes_on:
            count = f"failure {len(self._failures)} of {self._most} in a row"
            self._tell(f"warning: {error} ({count}; training goes on to the next save)")
