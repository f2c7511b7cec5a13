"""What `prepare --task` leaves when it is stopped, and that the next run resumes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import examples
from gpt2_jax.tasks.examples import prepare_task
from gpt2_jax.tasks.translation import Translation
from tests.tasks.data import PAIRS, write_lines, write_pairs


def _prepared(data: Path, out: Path) -> list[str]:
    """Prepares pairs in small work items and returns the lines of progress."""
    lines: list[str] = []
    prepare_task(Translation(), data, "bpe:300", out, work_item_bytes=300, log=lines.append)
    return lines


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("\ud800", "translation: example 2 of train, its answer: the text has a lone surrogate"),
        (None, "'target' must be a string"),
    ],
)
def test_an_example_that_cannot_be_learned_is_named(
    tmp_path: Path, target: str | None, message: str
) -> None:
    data = write_pairs(tmp_path / "pairs")
    write_lines(data / "train.jsonl", [PAIRS[0], {"source": "a", "target": target}])
    with pytest.raises(UserError, match=message):
        _prepared(data, tmp_path / "out")


def test_a_run_that_is_stopped_is_resumed_without_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_pairs(tmp_path / "pairs"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(examples, "put_in_place", _stop)
        with pytest.raises(KeyboardInterrupt, match="encoded work items are kept"):
            _prepared(data, out)
    assert not out.exists()
    # Other examples to validate on, while those to train on are encoded already.
    write_lines(data / "val.jsonl", PAIRS[2:4])
    (line,) = _prepared(data, out)
    assert line == "resuming: 6 of 7 work items are already encoded"
    assert _prepared(data, tmp_path / "whole") == []
    assert _files(out) == _files(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))
