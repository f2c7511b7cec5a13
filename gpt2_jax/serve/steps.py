"""Finds the saved steps of the run that a model was read from."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gpt2_jax.checkpoint.store import CheckpointStore


def run_folder(path: Path) -> Path:
    """Returns the folder of checkpoints beside the step at `path`."""
    return path.parent


def saved_steps(path: Path) -> list[int]:
    """Returns the saved steps of the run that a model was read from, newest first."""
    folder = run_folder(path)
    if folder.name != "checkpoints" or not path.name.isdigit():
        return []
    with contextlib.closing(CheckpointStore(folder, lean=True, read_only=True)) as store:
        return store.steps()
