"""Checkpoints on disk by Orbax: parameters, the rest of the state, and their description.

A step's folder holds three items: `params`, so that they can be read alone for sampling; `rest`,
any other pytree of arrays; and `meta`, JSON. Arrays carry no mesh: they are read back onto whatever
sharding the caller asks for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from gpt2_jax.checkpoint.storage import is_remote, remove_tree, storage_path
from gpt2_jax.errors import StorageError, UserError

_PARAMS, _REST, _META = "params", "rest", "meta"
_LEAN_GB, _FAST_GB = 2, 96  # arrays on their way at a time; 96 is Orbax's default


class CheckpointStore:
    """The checkpoints of one run, under `<directory>/<step>/`.

    Args:
      directory: made when it is missing, unless `read_only`.
      keep: newest checkpoints kept when another one is saved.
      lean: holds less memory beside the parameters while it reads or writes them, and takes a
        little longer.
      read_only: changes nothing. Otherwise step folders that are not whole are moved aside, to
        `<step>.incomplete`: Orbax would count them as checkpoints, and keep them for good ones.
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
        items = (_PARAMS, _REST, _META)
        # A model to read needs no optimizer state; a run to go on with does.
        self._needed = (_PARAMS, _META) if read_only else items
        if not read_only and jax.process_index() == 0:
            self._move_incomplete_aside()
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=0 if read_only else 1,
            max_to_keep=None if read_only else keep,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
        )
        in_flight_gb = _LEAN_GB if lean else _FAST_GB
        with _without_warnings():
            self._manager = ocp.CheckpointManager(
                self.directory,
                item_names=items,
                options=options,
                item_handlers={
                    _PARAMS: ocp.StandardCheckpointHandler(
                        save_concurrent_gb=in_flight_gb, restore_concurrent_gb=in_flight_gb
                    ),
                    _REST: ocp.StandardCheckpointHandler(),
                    _META: ocp.JsonCheckpointHandler(),
                },
            )

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, newest first, without stray and half-made folders."""
        self._manager.reload()
        steps = sorted(self._manager.all_steps(), reverse=True)
        return [step for step in steps if self._is_whole(self.directory / str(step))]

    def save(self, step: int, params: Any, rest: Any | None, meta: dict[str, Any]) -> None:
        """Copies the arrays and saves them in the background; a saved step is left as it is.

        Args:
          rest: None for a model that is to be read and not to be trained on.

        Raises:
          StorageError: if this save can't start, or the one before it failed.
        """
        if step in self._manager.all_steps():
            return
        args = {_PARAMS: ocp.args.StandardSave(params), _META: ocp.args.JsonSave(meta)}
        if rest is not None:
            args[_REST] = ocp.args.StandardSave(rest)
        try:
            self._manager.save(step, args=ocp.args.Composite(**args), force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Waits until the save in progress is committed.

        Raises:
          StorageError: if it failed.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

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
        """Waits for the save in progress and lets go of the folder."""
        self._manager.close()

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        try:
            for name, args in items.items():
                if name != _META:
                    self._check(step, name, args.item)
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).partition("[tensorstore_spec")[0].split())[:300]
            others = [str(other) for other in self.steps() if other != step]
            hint = f"; move it away to use step {others[0]}" if others else ""
            raise StorageError(
                f"can't read checkpoint {self.directory / str(step)}: {reason}{hint}"
            ) from error

    def _check(self, step: int, name: str, abstract: Any) -> None:
        """Compares first: Orbax would cast to the dtype asked for without a word."""
        stored = self._manager.item_metadata(step)[name]
        stored = getattr(stored, "tree", stored)
        saved = {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
        asked = {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
        where = f"checkpoint {self.directory / str(step)}"
        if saved.keys() != asked.keys():
            differing = sorted(saved.keys() ^ asked.keys())[0]
            side = "lacks" if differing in asked else "has an unexpected"
            raise UserError(
                f"{where} {side} {name} leaf {differing}: it was saved by another model config"
            )
        for key, leaf in asked.items():
            if tuple(saved[key].shape) != tuple(leaf.shape) or saved[key].dtype != leaf.dtype:
                raise UserError(
                    f"{where}: {name} leaf {key} is {saved[key].dtype}{list(saved[key].shape)}, "
                    f"the config asks for {leaf.dtype}{list(leaf.shape)}"
                )

    def _is_whole(self, folder: Path) -> bool:
        return all((folder / name).is_dir() for name in self._needed)

    def _move_incomplete_aside(self) -> None:
        for folder in list(self.directory.glob("*")):
            if folder.name.isdigit() and folder.is_dir() and not self._is_whole(folder):
                aside = folder.with_name(f"{folder.name}.incomplete")
                remove_tree(aside)  # of an earlier time
                folder.rename(aside)

    def _failed(self, error: Exception) -> StorageError:
        reason = " ".join(str(error).split())[:300]
        return StorageError(f"can't save a checkpoint in {self.directory}: {reason}")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Orbax warns that a folder it was asked to read only is read only."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _key(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
