"""What there is to go on from in a run's folder of checkpoints, and what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2_jax.checkpoint.manifest import find_damage
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import UserError, told
from gpt2_jax.files.storage import storage_path
from gpt2_jax.formats.load import locate


def examine_run(model: str | Path) -> dict[str, Any]:
    """Reads every file of every step, and compares it with the step's manifest; changes nothing.

    Args:
      model: a run's workdir, its checkpoints folder or one step's folder.

    Returns:
      {"folder", "steps": [{"step", "problem": None or what is wrong, "resumable": whether it has
      an optimizer's state}], newest first, "others": [{"name", "what"}], of what else lies there}.

    Raises:
      UserError: if there is no such folder.
    """
    path = storage_path(model, "--model")
    if not path.exists():
        raise UserError(f"no model at {model}: name a run's workdir")
    directory, step = locate(path)
    steps = CheckpointStore(directory, read_only=True).steps() if step is None else [step]
    looked_at = {str(step) for step in steps}
    others = () if step is not None else sorted(directory.glob("*"), key=str)
    return {
        "folder": str(directory),
        "steps": [_step(directory / str(step), step) for step in steps],
        "others": [
            {"name": other.name, "what": _what(other)}
            for other in others
            if other.name not in looked_at
        ],
    }


def _step(folder: Path, step: int) -> dict[str, Any]:
    try:
        problem = find_damage(folder)
    except OSError as error:
        problem = f"can't be read: {told(error)}"
    resumable = problem is None and (folder / "rest").is_dir()
    return {"step": step, "problem": problem, "resumable": resumable}


def _what(path: Path) -> str:
    if ".orbax-checkpoint-tmp" in path.name:
        return "of a save that is in progress or was killed: the next start removes it"
    if ".damaged" in path.name:
        return "a damaged step, set aside: remove it when you have looked at it"
    return "no checkpoint"
