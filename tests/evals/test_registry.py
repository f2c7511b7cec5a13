"""Tests that every task is made by its name, after its requests are checked against the context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.evals.registry import make_task
from tests.evals.task_files import CBT_STORY, HELLASWAG_LINE, setting, write_lines


def test_what_the_context_has_no_room_for_is_found_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    write_lines(tmp_path, "lambada_test.jsonl", {"text": "a b"}, {"text": "a " + "b" * 40})
    assert len(make_task("lambada_openai", setting(tmp_path)).requests) == 2
    with pytest.raises(UserError, match=r"example 2 of .*lambada_test\.jsonl has 41 tokens, more"):
        make_task("lambada_openai", setting(tmp_path, context_length=32))


@pytest.mark.parametrize("name", sources.SOURCES)
def test_each_entry_of_the_list_of_tasks_makes_the_task_of_its_name(
    tmp_path: Path, name: str
) -> None:
    source = sources.SOURCES[name]
    content = {
        "lambada_test.jsonl": json.dumps({"text": "a b"}),
        "hellaswag_val.jsonl": json.dumps(HELLASWAG_LINE),
    }
    content |= {f"cbtest_{kind}_valid_2000ex.txt": CBT_STORY for kind in ("CN", "NE")}
    path = tmp_path / source.file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content.get(source.file, "some words of a text . \n" * 9), encoding="utf-8")
    task = make_task(name, setting(tmp_path))
    assert (task.name, task.path) == (name, path)
    assert task.requests and task.protocol
