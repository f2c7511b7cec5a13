"""Tasks by name, and tasks in files of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.tasks import registry
from gpt2_jax.tasks.base import Task

_NAMELESS = """
from gpt2_jax.tasks.translation import Translation
class Mine(Translation):
    name = None
TASK = Mine()
"""


@pytest.mark.parametrize("name", registry.TASKS)
def test_every_entry_is_a_task_of_that_name(name: str) -> None:
    task = registry.make_task(name)
    assert isinstance(task, Task) and task.name == name
    assert name not in {*sources.SOURCES, *sources.GROUPS}


def test_a_list_is_divided() -> None:
    written, others = registry.split_names("translation, hellaswag,my/task.py,translation")
    assert written == ["translation", "my/task.py"] and others == ["hellaswag"]


def test_what_is_no_task_is_refused(tmp_path: Path) -> None:
    message = r"unknown task 'translatoin'.*; did you mean 'translation'\?$"
    with pytest.raises(UserError, match=message):
        registry.make_task("translatoin")
    with pytest.raises(UserError, match="there is no file"):
        registry.make_task(str(tmp_path / "none.py"))
    file = tmp_path / "mine.py"
    for content, problem in (
        (
            "TASK = 3",
            "must define TASK, an object of a class derived from gpt2_jax.tasks.base.Task",
        ),
        (_NAMELESS, "mine.py: the name of TASK must be letters, digits, - and _, not None"),
        ("x = 1\nraise ValueError('oh')", "mine.py, line 2: .*oh"),
        ("def f(:", "mine.py, line 1"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=problem):
            registry.make_task(str(file))
