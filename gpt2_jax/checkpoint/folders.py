"""The folders of checkpoints: which are steps, which are half written, and which are damaged."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from gpt2_jax.files.paths import is_remote, remove_tree

_STEP = re.compile(r"0|[1-9][0-9]*")  # as Orbax names the folder of a step
_COMMITTED, _HALF_WRITTEN = "commit_success.txt", ".orbax-checkpoint-tmp"  # Orbax's names
_TRIES, _SETTLE_S = 5, 0.2  # for the removal of what a failed save has written
_PROBE_BYTES = 1 << 16  # more than the folders and small files that a save begins with


def is_step(name: str) -> bool:
    """Returns whether a folder's name is that of a step."""
    return _STEP.fullmatch(name) is not None


def step_folders(directory: Path, *, committed: bool) -> list[Path]:
    """Returns the folders of steps that Orbax has committed, or those that it has not.

    On a disk the latter have another name; in a bucket they have no `commit_success.txt`.
    """
    folders = [path for path in directory.glob("*") if path.is_dir()]
    steps = [path for path in folders if is_step(path.name)]
    if is_remote(directory):
        return [path for path in steps if (path / _COMMITTED).exists() == committed]
    return steps if committed else [path for path in folders if _HALF_WRITTEN in path.name]


def remove_half_written(directory: Path) -> None:
    """Frees the space that a failed save takes; otherwise Orbax does so on the next start.

    It tries for about a second, because threads of Orbax may still write after they have reported
    the failure.
    """
    with contextlib.suppress(Exception):
        for _ in range(_TRIES):
            for folder in step_folders(directory, committed=False):
                with contextlib.suppress(OSError):
                    remove_tree(folder)
            time.sleep(_SETTLE_S)
            if not step_folders(directory, committed=False):
                return


def rename_damaged(folder: Path) -> Path:
    """Renames a step's folder to `<step>.damaged`, or with a number if that exists; returns it.

    Under its own name Orbax would count it as a checkpoint, and could not save the step again.
    """
    renamed, number = folder.with_name(f"{folder.name}.damaged"), 1
    while renamed.exists():
        renamed, number = folder.with_name(f"{folder.name}.damaged.{number}"), number + 1
    folder.rename(renamed)
    return renamed


def mark_half_written(folder: Path) -> Path:
    """Makes a committed step one that looks half written, so that it can be removed; returns it.

    Raises:
      OSError: if that is not possible.
    """
    if is_remote(folder):
        (folder / _COMMITTED).unlink(missing_ok=True)
        return folder
    marked = folder.with_name(f"{folder.name}{_HALF_WRITTEN}-removed")
    remove_tree(marked)  # what an interrupted removal has left
    return folder.rename(marked)


def check_space(directory: Path) -> None:
    """Writes and removes a small file, so that a full disk fails before a save begins.

    Process 0 makes the folders of a save while the others wait for it in a collective without a
    timeout.

    Raises:
      OSError: if the file cannot be written.
    """
    if is_remote(directory):
        return
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / ".space"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    finally:
        probe.unlink(missing_ok=True)
