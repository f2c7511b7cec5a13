"""Makes any task by its name, ready to be scored."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpt2_jax.errors import UserError
from gpt2_jax.evals.sources import SOURCES
from gpt2_jax.evals.task import Setting, Task


def task_factory(name: str) -> Callable[[Setting], Task]:
    """Imports and returns what makes the task of that name; see `Source.task`."""
    module, _, attribute = SOURCES[name].task.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def make_task(name: str, setting: Setting) -> Task:
    """Returns the task of that name, after checking that its requests fit the model's context.

    Raises:
      UserError: if a file is missing or malformed, or an example is too long: before anything is
        computed.
    """
    task = task_factory(name)(setting)
    for number, request in enumerate(task.requests, start=1):
        longest = max(map(len, request.continuations))
        if longest > setting.context_length:
            raise UserError(
                f"{name}: what is scored in example {number} of {task.path} has {longest} tokens, "
                f"more than the model's context of {setting.context_length}: leave {name} out"
            )
    return task
