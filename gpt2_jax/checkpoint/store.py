"""Checkpoints on disk by Orbax: parameters, the rest of the state, and their description.

A step's folder holds three items: `params`, so that they can be read alone for sampling; `rest`,
any other pytree of arrays; and `meta`, JSON. Arrays carry no mesh: they are read back onto whatever
sharding the caller asks for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from gpt2_jax.checkpoint.commit import STEP, Folder, PeerFailed, RemoteFolder, wait_for_all
from gpt2_jax.checkpoint.manifest import find_damage
from gpt2_jax.checkpoint.trees import check_tree
from gpt2_jax.errors import StorageError, UserError, is_disk_full, shortened, told, warn
from gpt2_jax.files.storage import is_remote, remove_tree, storage_path
from gpt2_jax.parallel.distributed import agreed, first_said, is_lost, is_primary, on_primary

_ITEMS = _PARAMS, _REST, _META = "params", "rest", "meta"
_COMMITTED, _HALF_MADE = "commit_success.txt", ".orbax-checkpoint-tmp"  # Orbax's names
_LEAN_GB, _FAST_GB = 2, 96  # arrays on their way at a time; 96 is Orbax's default
_TRIES, _SETTLE_S = 5, 0.2  # of removing what a failed save has written
_ROOM = 1 << 16  # bytes, more than the folders and small files that a save begins with


class CheckpointStore:
    """The checkpoints of one run, under `<directory>/<step>/`.

    In a run of several processes each must call every method, in the same order.

    Args:
      directory: made when it is missing, unless `read_only`.
      keep: newest checkpoints kept when another one is saved.
      lean: holds less memory beside the arrays while it reads or writes them, and takes a little
        longer.
      read_only: changes nothing, and needs no optimizer state: a model to read has none.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 1,
        lean: bool = False,
        read_only: bool = False,
    ) -> None:
        path = storage_path(directory)
        self.directory = path if is_remote(path) else path.absolute()
        self._needed = (_PARAMS, _META) if read_only else _ITEMS
        self._read_only = read_only
        self._options = ocp.CheckpointManagerOptions(
            save_interval_steps=0 if read_only else 1,
            max_to_keep=None if read_only else keep,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            temporary_path_class=RemoteFolder if is_remote(path) else Folder,
            async_options=ocp.AsyncOptions(
                barrier_sync_fn=wait_for_all if jax.process_count() > 1 else None
            ),
        )
        self._in_flight_gb = _LEAN_GB if lean else _FAST_GB
        self._opened: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """What looks like a committed step, newest first: it may be damaged, or something else."""
        return sorted((int(path.name) for path in self._folders(committed=True)), reverse=True)

    def damage(self, step: int) -> str | None:
        """What is wrong with a step's files, None if they are as they were saved.

        Raises:
          StorageError: if the disk can't tell.
        """
        folder = self.directory / str(step)
        part = (jax.process_index(), jax.process_count())
        found = failure = None
        try:
            found = find_damage(folder, self._needed, part)
        except OSError as error:
            failure = told(error)
        if failure := first_said(failure):
            raise StorageError(f"can't look at checkpoint {folder}, which may be whole: {failure}")
        return first_said(found)

    def newest_good(self) -> int | None:
        """The newest step whose files are as they were saved; None where there is no step at all.

        Newer ones are warned of and, unless the store is only read, moved aside to
        `<step>.damaged`: Orbax would count them as checkpoints, and such a step could not be saved
        again.

        Raises:
          StorageError: if there are steps, and all are damaged, or the disk can't tell whether they
            are. Then nothing is moved.
        """
        steps, good, bad = self.steps(), None, dict[int, str]()
        for i in range(agreed(len(steps))):
            step = agreed(steps[i] if i < len(steps) else -1)
            if problem := self.damage(step):
                bad[step] = problem
            else:
                good = step
                break
        if bad and good is None and self._read_only and agreed(int(steps != self.steps())):
            return self.newest_good()  # a trainer has saved another and removed what was there
        if bad and good is None:
            found = "; ".join(f"{step}: {problem}" for step, problem in bad.items())
            raise StorageError(
                f"no checkpoint in {self.directory} is whole ({found}): put back what is missing, "
                "or move the folder away to start over"
            )
        on_primary(lambda: [self._set_aside(step, problem, good) for step, problem in bad.items()])
        return good

    def save(self, step: int, params: Any, rest: Any | None, meta: dict[str, Any]) -> None:
        """Copies the arrays and saves them in the background; a saved step is left as it is.

        Call `wait` first: it tells how the save before went.

        Args:
          rest: None for a model that is to be read and not to be trained on.

        Raises:
          StorageError: if this save can't start; see `wait`.
        """
        if agreed(int(step in self.steps())):
            return
        args = {_PARAMS: ocp.args.StandardSave(params), _META: ocp.args.JsonSave(meta)}
        if rest is not None:
            args[_REST] = ocp.args.StandardSave(rest)
        with self._saving():
            if jax.process_count() > 1:
                on_primary(self._check_room)
            self._manager.save(step, args=ocp.args.Composite(**args), force=True)

    def wait(self) -> None:
        """Waits until the save in progress, if there is one, is committed.

        Raises:
          StorageError: if it failed. What it has written is removed, and the next may succeed.
        """
        if self._opened is not None:
            with self._saving():
                self._opened.wait_until_finished()

    def saving(self) -> bool:
        """Whether a save is in progress, or was when process 0 looked."""
        busy = self._opened is not None and self._opened.is_saving_in_progress()
        return bool(agreed(int(busy)))

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON stored with a step."""
        return self._restore(step, {_META: ocp.args.JsonRestore()})[_META]

    def restore_params(self, step: int, abstract: Any) -> Any:
        """The parameters alone.

        Args:
          abstract: ShapeDtypeStructs; their shardings say where the arrays go.

        Raises:
          StorageError: if they can't be read, or do not have these names, shapes and dtypes.
        """
        return self._restore(step, {_PARAMS: ocp.args.StandardRestore(abstract)})[_PARAMS]

    def restore(self, step: int, abstract_params: Any, abstract_rest: Any) -> tuple[Any, Any]:
        """(params, rest) of a step; see `restore_params`."""
        asked = {
            _PARAMS: ocp.args.StandardRestore(abstract_params),
            _REST: ocp.args.StandardRestore(abstract_rest),
        }
        restored = self._restore(step, asked)
        return restored[_PARAMS], restored[_REST]

    def close(self) -> None:
        """Waits for the save in progress, however it goes, and lets go of the folder."""
        manager, self._opened = self._opened, None
        if manager is not None:
            with contextlib.suppress(Exception):
                manager.close()

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Opened when it is first needed: Orbax removes what killed saves have left as it opens."""
        if self._opened is None:
            params, rest = (
                ocp.StandardCheckpointHandler(
                    save_concurrent_gb=self._in_flight_gb, restore_concurrent_gb=self._in_flight_gb
                )
                for _ in (_PARAMS, _REST)
            )
            handlers = {_PARAMS: params, _REST: rest, _META: ocp.JsonCheckpointHandler()}
            with _without_warnings():
                self._opened = ocp.CheckpointManager(
                    self.directory,
                    item_names=self._needed,
                    options=self._options,
                    item_handlers={name: handlers[name] for name in self._needed},
                )
        return self._opened

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """What fails in one process fails in all, and what it leaves is removed."""
        problem = elsewhere = None
        try:
            yield
        except PeerFailed as error:  # which should say why
            elsewhere = str(error)
        except Exception as error:  # of Orbax, TensorStore, JAX, a bucket
            problem = _reason(error)
        if problem := first_said(problem) or first_said(elsewhere):
            self.close()
            if is_primary():
                self._remove_half_made()
            raise StorageError(f"can't save a checkpoint in {self.directory}: {problem}")

    def _folders(self, *, committed: bool) -> list[Path]:
        """Folders of steps: those that Orbax has committed, or those that it has not, or not yet.

        On a disk the latter have other names; in a bucket they lack a last file.
        """
        folders = [path for path in self.directory.glob("*") if path.is_dir()]
        steps = [path for path in folders if STEP.fullmatch(path.name)]
        if is_remote(self.directory):
            return [path for path in steps if (path / _COMMITTED).exists() == committed]
        return steps if committed else [path for path in folders if _HALF_MADE in path.name]

    def _check_room(self) -> None:
        """Fails where process 0 would while all others wait in a collective, which has no end."""
        if is_remote(self.directory):
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        probe = self.directory / ".room"
        try:
            probe.write_bytes(bytes(_ROOM))
        finally:
            probe.unlink(missing_ok=True)

    def _remove_half_made(self) -> None:
        """Makes room at once; else Orbax does as it opens the folder.

        Some of its threads may still be writing after it has told of the failure.
        """
        with contextlib.suppress(Exception):
            for _ in range(_TRIES):
                for folder in self._folders(committed=False):
                    with contextlib.suppress(OSError):
                        remove_tree(folder)
                time.sleep(_SETTLE_S)
                if not self._folders(committed=False):
                    return

    def _set_aside(self, step: int, problem: str, good: int | None) -> None:
        """Out of the way: Orbax would count it as a checkpoint, and could not save it again."""
        folder = self.directory / str(step)
        warning = f"checkpoint {folder} is damaged ({problem}): step {good} is used"
        if not self._read_only:
            aside, others = folder.with_name(f"{step}.damaged"), 1
            while aside.exists():
                aside, others = folder.with_name(f"{step}.damaged.{others}"), others + 1
            folder.rename(aside)
            warning += f", and {step} is now {aside.name}, to be removed when you have looked at it"
        warn(warning)

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        try:
            for name, args in items.items():
                if name != _META:
                    where = f"checkpoint {self.directory / str(step)}"
                    check_tree(where, name, self._stored(step, name), args.item)
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except Exception as error:
            if is_lost(error):
                raise
            reason = shortened(told(error).partition("[tensorstore_spec")[0], 300)
            folder = self.directory / str(step)
            raise StorageError(f"can't read checkpoint {folder}: {reason}") from error

    def _stored(self, step: int, name: str) -> Any:
        """What Orbax knows of an item's arrays without reading them."""
        with _without_warnings():  # of items that are not needed
            stored = self._manager.item_metadata(step)[name]
        return getattr(stored, "tree", stored)


def _reason(error: BaseException) -> str:
    text = shortened(told(error), 2000)
    # TensorStore tells of a full disk in its own words, at the end of a long line.
    full = is_disk_full(error) or "no space left on" in text.lower() or "quota exceeded" in text
    return "no space left on the disk" if full else shortened(text, 300)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Orbax warns of what it was asked for, such as to read only, or only some items."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
