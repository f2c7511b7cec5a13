"""Examines a run's checkpoints: which steps can be resumed, and which are damaged and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2_jax.checkpoint.best import RECORD, find_best
from gpt2_jax.checkpoint.manifest import find_damage
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import UserError, error_text
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.formats.base import find_problem
from gpt2_jax.formats.load import is_foreign, open_model
from gpt2_jax.formats.model import Base
from gpt2_jax.formats.places import BEST, NEWEST, is_place, locate
from gpt2_jax.parallel.platforms import check_platforms


def examine_run(model: str | Path) -> dict[str, Any]:
    """Reads every file of every step and compares it with the step's manifest; changes nothing.

    Args:
      model: a run's workdir, its folder of checkpoints, the folder of one step, or a place such as
        `RUN/checkpoints/best`.

    Returns:
      {"folder", "steps": [{"step", "problem", "damaged", "resumable"}], "others": [{"name",
      "what"}], "best": {"metric", "step", "value"}}. Steps are sorted newest first; `problem` is
      None for a good step, `damaged` says whether the problem is in the step itself and not in the
      base of its adapters, and `resumable` whether it can be resumed, for which it needs an
      optimizer state. `others` describes everything else in the folder, and `best` is None unless
      one of these steps is known to be the best.

    Raises:
      UserError: if the folder does not exist, or holds no checkpoints.
    """
    path = resolve_path(model, "--model")
    if not path.exists() and not is_place(path):
        raise UserError(f"no model at {model}: name a run's workdir")
    if is_foreign(path):
        raise UserError(
            f"{path} holds a model in another program's format, which has no checkpoints to "
            "examine: name a run's workdir, or try the model with gpt2-jax sample --model"
        )
    directory, place = locate(path)
    check_platforms()
    store = CheckpointStore(directory, read_only=True)
    saved = store.steps()
    best = find_best(directory, saved)
    if place == BEST:
        steps = [best.step] if best else []
    elif place == NEWEST:
        steps = saved[:1] if is_place(path) else saved
    else:
        steps = [int(place)]
    others = sorted(directory.glob("*"), key=str) if place == NEWEST and not is_place(path) else ()
    step_names = {RECORD, *(str(step) for step in steps)}
    return {
        "folder": str(directory),
        "steps": [_step(store, step) for step in steps],
        "others": [
            {"name": other.name, "what": _describe(other)}
            for other in others
            if other.name not in step_names
        ],
        "best": best._asdict() if best and best.step in steps else None,
    }


def _step(store: CheckpointStore, step: int) -> dict[str, Any]:
    folder = store.directory / str(step)
    try:
        problem = find_damage(folder)
    except OSError as error:
        problem = f"cannot be read: {error_text(error)}"
    damaged = problem is not None
    if not damaged:
        problem = _problem_of_base(store, step)
    resumable = problem is None and (folder / "rest").is_dir()
    return {"step": step, "problem": problem, "damaged": damaged, "resumable": resumable}


def _problem_of_base(store: CheckpointStore, step: int) -> str | None:
    """Returns why the base of the adapters in a step cannot be read; None without adapters."""
    meta = store.meta(step)
    if not meta.get("base"):
        return None
    init_from = meta["config"]["train"]["init_from"]
    where = store.directory / str(step)
    return find_problem(Base(**meta["base"]), init_from, where, open_model)


def _describe(path: Path) -> str:
    if ".orbax-checkpoint-tmp" in path.name:
        return "a save that is in progress or was killed: the next start removes it"
    if ".damaged" in path.name:
        return "a damaged step that was set aside: remove it once you have examined it"
    return "not a checkpoint"
