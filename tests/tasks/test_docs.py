"""The page on tasks: its file is a task, and its commands parse."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from gpt2_jax.cli.verb import parse
from gpt2_jax.tasks.registry import TASKS, make_task

_PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_the_task_of_the_page_reads_formats_and_scores(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
    file = tmp_path / "comprehension.py"
    file.write_text(code, encoding="utf-8")
    (line,) = re.findall(r"`(\{\"passage.*?\})`", _PAGE, re.DOTALL)
    (tmp_path / "test.jsonl").write_text(line.replace("\n", " ") + "\n", encoding="utf-8")
    task = make_task(str(file))
    (record,) = task.read(tmp_path, "test")
    assert task.format(record) == ("...\nQ: Who?\nA: Ada.\nQ: When?\nA:", " 1843")
    for answer, exact, f1 in (("1843", 100, 100), ("In 1843.", 0, 100 * 2 / 3), ("Never", 0, 0)):
        found = {metric.name: metric.value() for metric in task.score([record], [answer])}
        assert found == pytest.approx({"exact": exact, "f1": f1})


def test_every_command_of_the_page_parses() -> None:
    found = re.findall(r"^ {4,6}(gpt2-jax [^\n]*)$", _PAGE, re.MULTILINE)
    commands = [line for line in found if line.count('"') % 2 == 0]
    assert len(commands) > 6
    for line in commands:
        _, verb, *words = shlex.split(line)
        parse(verb, importlib.import_module(f"gpt2_jax.cli.{verb}"), words)


def test_the_page_names_every_task() -> None:
    assert all(f"`{name}`" in _PAGE for name in TASKS)
