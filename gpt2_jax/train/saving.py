"""Saves a run's state, and goes on when the disk is full: there may be room the next time."""

from __future__ import annotations

from collections.abc import Callable

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.train.run import Run
from gpt2_jax.train.state import TrainState, without_params


class Saver:
    """The saves of a run; each is written in the background, while training goes on."""

    def __init__(self, run: Run, store: CheckpointStore, tell: Callable[[str], None]) -> None:
        """Takes the store, and whom to tell of a save that failed."""
        self._run, self._store, self._tell = run, store, tell
        self._most = run.config.checkpoint.max_failures
        self._pending = False
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
            self._pending = True

    def look(self) -> None:
        """If the save in progress has ended by now, tells how: one that failed leaves its room."""
        if self._pending and not self._store.saving():
            self._settle()

    def finish(self) -> None:
        """Waits until the last save is committed.

        Raises:
          StorageError: if it failed.
        """
        self._settle()
        if self._failures:
            raise StorageError(f"{self._failures[-1]}{self._kept()}")

    def _settle(self) -> None:
        """Waits until the save in progress is committed or has failed."""
        if not self._pending:
            return
        self._pending = False
        try:
            self._store.wait()
        except StorageError as error:
            self._failed(error)
        else:
            self._failures = []

    def _kept(self) -> str:
        steps = self._store.steps()
        newest = f"the newest checkpoint is of step {steps[0]}" if steps else "there is none yet"
        return f"; {newest}: make room and run the same command again to go on from it"

    def _failed(self, error: StorageError) -> None:
        self._failures.append(error)
        if len(self._failures) >= self._most:
            raise StorageError(f"{error}: failure {len(self._failures)} in a row{self._kept()}")
        self._tell(
            f"warning: {error} (failure {len(self._failures)} of {self._most} in a row; training "
            "goes on to the next save)"
        )
