"""Tests results.json: it keeps the tasks of one model, and holds nothing that JSON cannot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.evals import results
from gpt2_jax.evals.results import plain, write_results


def _tasks(path: Path) -> dict[str, dict[str, float | None]]:
    return json.loads(path.read_text(encoding="utf-8"))["tasks"]


def test_nan_and_infinity_become_null() -> None:
    metrics = {"acc": 0.5, "acc_stderr": math.nan, "perplexity": math.inf, "count": 1}
    assert plain({"lambada_openai": metrics}) == {
        "lambada_openai": {"acc": 0.5, "acc_stderr": None, "perplexity": None, "count": 1}
    }


def test_the_file_is_json_that_strict_readers_accept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, "runs/a", "digest", {"ptb": {"word_perplexity": math.inf}})
    text = path.read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(text, parse_constant=refuse)
    assert document["model"] == "runs/a" and document["digest"] == "digest"
    assert text.endswith("}\n")


def test_tasks_of_the_same_model_are_kept_and_repeated_ones_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, "runs/a", "same", {"ptb": {"count": 1}, "text8": {"count": 2}})
    write_results(path, "runs/a", "same", {"text8": {"count": 3}, "lm1b": {"count": 4}})
    counts = {name: metrics["count"] for name, metrics in _tasks(path).items()}
    assert counts == {"ptb": 1, "text8": 3, "lm1b": 4}


def test_tasks_of_another_model_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, "runs/a", "one", {"ptb": {"count": 1}})
    write_results(path, "runs/a", "other", {"text8": {"count": 2}})
    assert _tasks(path) == {"text8": {"count": 2}}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'{"digest": "same"}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_file_is_written_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    write_results(path, "runs/a", "same", {"ptb": {"count": 1}})
    assert _tasks(path) == {"ptb": {"count": 1}}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot read .*results\.json: Is a directory"):
        write_results(path, "runs/a", "same", {"ptb": {"count": 1}})


def test_a_failure_to_write_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_results(path, "runs/a", "same", {"ptb": {"count": 1}})

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_file", fail)
    with pytest.raises(StorageError, match=r"cannot write .*results\.json: No space left"):
        write_results(path, "runs/a", "same", {"text8": {"count": 2}})
    assert _tasks(path) == {"ptb": {"count": 1}}
