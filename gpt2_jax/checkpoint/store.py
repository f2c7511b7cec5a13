"""Checkpoints by Orbax: parameters, the rest of the training state, and metadata.

The folder of a step holds three items: `params`, which can be read alone for sampling; `rest`, any
other tree of arrays; and `meta`, JSON. No mesh is stored: arrays are restored onto the shardings
that the caller passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from gpt2_jax.checkpoint.commit import LocalFolder, PeerFailed, RemoteFolder, wait_for_all
from gpt2_jax.checkpoint.folders import (
    check_space,
    remove_half_written,
    rename_damaged,
    step_folders,
)
from gpt2_jax.checkpoint.items import AVERAGE, META, PARAMS, REST, handlers, without_warnings
from gpt2_jax.checkpoint.manifest import MODEL_ALONE, NO_AVERAGE, find_damage
from gpt2_jax.checkpoint.trees import check_tree
from gpt2_jax.errors import StorageError, UserError, error_text, shortened, warn
from gpt2_jax.files.disk_full import disk_full_message, is_disk_full
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.parallel.distributed import (
    broadcast_from_primary,
    first_message,
    is_peer_loss,
    is_primary,
    run_on_primary,
)

# Gigabytes of arrays in memory at a time while reading or writing; 96 is Orbax's default.
_LEAN_GB, _FAST_GB = 2, 96


class Survey(NamedTuple):
    """Holds the steps that there were, newest first, and what is wrong with the newest of them."""

    steps: list[int]
    good: int | None
    """The newest step without damage, or None."""
    damaged: dict[int, str]
    """What is wrong with each newer step."""


class CheckpointStore:
    """Saves and restores the checkpoints of one run, in `<directory>/<step>/`.

    In a run of several processes each must call every method, in the same order.

    Args:
      directory: made if it is missing, unless `read_only`.
      keep: number of newest checkpoints to keep when another one is saved; None keeps all.
      keep_every: checkpoints of steps that are multiples of this are kept as well; None keeps no
        others.
      lean: needs less memory besides the arrays while reading or writing, and takes a little
        longer.
      read_only: changes nothing, and does not need the item `rest`, which exported models lack.
      average: read the average of the parameters in place of the parameters; only for `read_only`.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int | None = 1,
        keep_every: int | None = None,
        lean: bool = False,
        read_only: bool = False,
        average: bool = False,
    ) -> None:
        path = resolve_path(directory)
        self.directory = path if is_remote(path) else path.absolute()
        self._model = AVERAGE if average else PARAMS
        self._needed = (self._model, META) if read_only else (PARAMS, REST, META)
        self._read_only = read_only
        self._options = ocp.CheckpointManagerOptions(
            save_interval_steps=0 if read_only else 1,
            max_to_keep=None if read_only else keep,
            keep_period=None if read_only else keep_every,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            temporary_path_class=RemoteFolder if is_remote(path) else LocalFolder,
            async_options=ocp.AsyncOptions(
                barrier_sync_fn=wait_for_all if jax.process_count() > 1 else None
            ),
        )
        self._in_flight_gb = _LEAN_GB if lean else _FAST_GB
        self._opened: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """Returns the committed steps, newest first, without checking for damage."""
        folders = step_folders(self.directory, committed=True)
        return sorted((int(folder.name) for folder in folders), reverse=True)

    def damage(self, step: int) -> str | None:
        """Returns what is wrong with the files of a step, or None if they are as they were saved.

        Raises:
          StorageError: if the files cannot be read at the moment.
        """
        folder = self.directory / str(step)
        every = (jax.process_index(), jax.process_count())  # all processes share the work
        problem = failure = None
        try:
            problem = find_damage(
                folder, self._needed, every, () if self._read_only else (AVERAGE,)
            )
        except OSError as error:
            failure = error_text(error)
        if failure := first_message(failure):
            raise StorageError(f"cannot check checkpoint {folder}, which may be intact: {failure}")
        return first_message(problem)

    def newest_good(self) -> int | None:
        """Returns the newest step without damage, or None if there are no steps.

        It warns of newer, damaged steps and, unless `read_only`, renames them to `<step>.damaged`.
        While a trainer may be removing steps, use `newest.read_newest`.

        Raises:
          UserError: if there is a model, but not the state of the run that is to resume.
          StorageError: if all steps are damaged, or their files cannot be read at the moment. Then
            nothing is renamed.
        """
        return self.accept(self.survey())

    def survey(self) -> Survey:
        """Looks for the newest step without damage, and changes nothing.

        Raises:
          StorageError: if files cannot be read at the moment.
        """
        steps, damaged = self.steps(), dict[int, str]()
        for i in range(broadcast_from_primary(len(steps))):
            step = broadcast_from_primary(steps[i] if i < len(steps) else -1)
            if not (problem := self.damage(step)):
                return Survey(steps, step, damaged)
            damaged[step] = problem
        return Survey(steps, None, damaged)

    def accept(self, survey: Survey) -> int | None:
        """Returns the good step of a survey; warns, renames and raises as `newest_good` does."""
        good, damaged = survey.good, survey.damaged
        if good is None and set(damaged.values()) == {MODEL_ALONE}:
            model = self.directory.parent
            raise UserError(
                f"{model} has {MODEL_ALONE}, as gpt2-jax convert writes it: to train the model, "
                f"start a run in another --workdir with --config.train.init_from={model}"
            )
        if good is None and set(damaged.values()) == {NO_AVERAGE}:
            raise UserError(f"{self.directory.parent}: {NO_AVERAGE}")
        if damaged and good is None:
            problems = "; ".join(f"{step}: {problem}" for step, problem in damaged.items())
            raise StorageError(
                f"every checkpoint in {self.directory} is damaged ({problems}): restore the files, "
                "or move the folder away to start over"
            )

        def report() -> None:
            for step, problem in damaged.items():
                self._report_damage(step, problem, good)

        run_on_primary(report)
        return good

    def save(self, step: int, params: Any, rest: Any | None, meta: dict[str, Any]) -> None:
        """Copies the arrays and saves them in the background; does nothing for a saved step.

        Call `wait` first, which raises if the previous save has failed.

        Args:
          step: names the folder.
          params: a tree of arrays.
          rest: a mapping of trees of arrays, or None for a model that is not to be trained further.
            The tree `ema`, if there is one, is stored apart.
          meta: what JSON can express.

        Raises:
          StorageError: if this save cannot start; see `wait`.
        """
        if broadcast_from_primary(int(step in self.steps())):
            return
        args = {PARAMS: ocp.args.StandardSave(params), META: ocp.args.JsonSave(meta)}
        for name, tree in _split(rest).items():
            args[name] = ocp.args.StandardSave(tree)
        with self._handling_failures():
            if jax.process_count() > 1:
                run_on_primary(lambda: check_space(self.directory))
            self._manager.save(step, args=ocp.args.Composite(**args), force=True)

    def wait(self) -> None:
        """Waits until the save in progress, if there is one, is committed.

        Raises:
          StorageError: if it failed. Its files are removed, and the next save may succeed.
        """
        if self._opened is not None:
            with self._handling_failures():
                self._opened.wait_until_finished()

    def saving(self) -> bool:
        """Returns whether a save is in progress in process 0."""
        busy = self._opened is not None and self._opened.is_saving_in_progress()
        return bool(broadcast_from_primary(int(busy)))

    def meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON stored with a step.

        Raises:
          StorageError: if it cannot be read.
        """
        return self._restore(step, {META: ocp.args.JsonRestore()})[META]

    def restore_params(self, step: int, abstract: Any) -> Any:
        """Returns the parameters alone, or with `average` their average.

        Args:
          step: the step to restore.
          abstract: a tree of ShapeDtypeStructs, whose shardings say where the arrays go.

        Raises:
          StorageError: if they cannot be read.
          UserError: if names, shapes or dtypes are not those of `abstract`.
        """
        return self._restore(step, {self._model: ocp.args.StandardRestore(abstract)})[self._model]

    def restore(self, step: int, abstract_params: Any, abstract_rest: Any) -> tuple[Any, Any]:
        """Returns (params, rest) of a step; see `restore_params`."""
        trees = {PARAMS: abstract_params} | _split(abstract_rest)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
        restored = self._restore(step, items)
        averages = {AVERAGE: restored[AVERAGE]} if AVERAGE in items else {}
        return restored[PARAMS], {**restored[REST], **averages}

    def close(self) -> None:
        """Waits for the save in progress, even if it fails, and releases the folder."""
        manager, self._opened = self._opened, None
        if manager is not None:
            with contextlib.suppress(Exception):
                manager.close()

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Opens Orbax's manager on first use, because that removes half-written saves."""
        if self._opened is None:
            names = self._needed if self._read_only else (*self._needed, AVERAGE)
            with without_warnings():
                self._opened = ocp.CheckpointManager(
                    self.directory,
                    item_names=names,
                    options=self._options,
                    item_handlers=handlers(names, self._in_flight_gb),
                )
        return self._opened

    @contextlib.contextmanager
    def _handling_failures(self) -> Iterator[None]:
        """Turns a failure in one process into a StorageError in all, and removes its files."""
        reason = peer_failed = None
        try:
            yield
        except PeerFailed as error:  # the peer itself has the reason
            peer_failed = str(error)
        except Exception as error:  # of Orbax, TensorStore, JAX or a bucket
            reason = _reason(error)
        if reason := first_message(reason) or first_message(peer_failed):
            self.close()
            if is_primary():
                remove_half_written(self.directory)
            raise StorageError(f"cannot save a checkpoint in {self.directory}: {reason}")

    def _report_damage(self, step: int, problem: str, good: int | None) -> None:
        folder = self.directory / str(step)
        warning = f"checkpoint {folder} is damaged ({problem}): step {good} is used"
        if not self._read_only:
            renamed = rename_damaged(folder)
            warning += f", and {step} is now {renamed.name}; remove it once you have looked at it"
        warn(warning)

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        folder = self.directory / str(step)
        try:
            for name, args in items.items():
                if name != META:
                    check_tree(f"checkpoint {folder}", name, self._stored(step, name), args.item)
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except Exception as error:
            if is_peer_loss(error):
                raise
            reason = shortened(error_text(error).partition("[tensorstore_spec")[0], 300)
            raise StorageError(f"cannot read checkpoint {folder}: {reason}") from error

    def _stored(self, step: int, name: str) -> Any:
        """Returns shapes and dtypes of an item's arrays, without reading them."""
        with without_warnings():  # of items that are not needed
            stored = self._manager.item_metadata(step)[name]
        if stored is None:
            raise FileNotFoundError(f"the metadata of {name} is missing")
        return getattr(stored, "tree", stored)


def _split(rest: Any | None) -> dict[str, Any]:
    """Returns the items that the state besides the parameters is stored as; none for None."""
    if rest is None:
        return {}
    others = {name: tree for name, tree in rest.items() if name != AVERAGE}
    return {REST: others} | ({AVERAGE: rest[AVERAGE]} if AVERAGE in rest else {})


def _reason(error: BaseException) -> str:
    """Returns why a save failed, in one short line."""
    if is_disk_full(error):  # the file that the error names is Orbax's own
        return disk_full_message(error, place="the disk", remedy="")
    return shortened(error_text(error), 300)
