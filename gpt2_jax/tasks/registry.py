"""Every task that a model does by writing, by name, and tasks in files of users."""

from __future__ import annotations

import functools
import importlib
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_jax.config.mistakes import explain
from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.files.paths import local_path

if TYPE_CHECKING:
    from gpt2_jax.tasks.base import Task

TASKS = {
    "translation": "translation:Translation",
    "translation_zero_shot": "translation:ZeroShotTranslation",
    "summarization": "summarization:Summarization",
    "summarization_zero_shot": "summarization:ZeroShotSummarization",
    "music": "music.task:Music",
}
"""`module:class` in this package of each task; nothing is imported before a task is made."""

NAMES = (*TASKS, "FILE.py")
"""What a task can be called, for messages."""
_NAME = re.compile(r"[\w-]+")
SPLITS = ("train", "val", "test")
"""The splits of a task's data."""


def is_task(name: str) -> bool:
    """Returns whether a name is that of a task here, or of a file with one."""
    return name in TASKS or name.endswith(".py")


def make_task(name: str) -> Task:
    """Returns the task of that name, or the `TASK` of the file of that name.

    Raises:
      UserError: for an unknown name, or a file that is missing, fails or has no task.
    """
    if name.endswith(".py"):
        return _from_file(name)
    if name not in TASKS:
        hint = did_you_mean(name, TASKS) or f"; the tasks are: {', '.join(TASKS)}"
        raise UserError(f"unknown task {name!r}, and no file FILE.py with a TASK{hint}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)()


def split_names(names: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the tasks of a list that are answered by writing, and all other names."""
    parts = names.split(",") if isinstance(names, str) else names
    parts = [name.strip() for name in parts if name.strip()]
    written = [name for name in dict.fromkeys(parts) if is_task(name)]
    return written, [name for name in parts if not is_task(name)]


def _from_file(name: str) -> Task:
    from gpt2_jax.tasks.base import Task

    path = local_path(name, "the task")
    if not path.is_file():
        raise UserError(f"there is no file {path} with a task")
    try:
        task = runpy.run_path(str(path)).get("TASK")
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # includes sys.exit(0)
        raise UserError(explain(path, error)) from error
    if not isinstance(task, Task):
        raise UserError(
            f"{path} must define TASK, an object of a class derived from gpt2_jax.tasks.base.Task"
        )
    called = getattr(task, "name", None)
    if not isinstance(called, str) or not _NAME.fullmatch(called):
        raise UserError(
            f"{path}: the name of TASK must be letters, digits, - and _, not {called!r}"
        )
    for method in ("read", "format", "score", "answer"):
        vars(task)[method] = _explained(getattr(task, method), path)
    return task


def _explained(method: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """Returns a method of a user's task whose failure is told by the line of its file."""

    @functools.wraps(method)
    def call(*args: Any) -> Any:
        try:
            return method(*args)
        except UserError:
            raise
        except Exception as error:
            raise UserError(explain(path, error)) from error

    return call
