"""Tests the record of the best step, how it is found without the record, and what is removed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from gpt2_jax.checkpoint import pruning
from gpt2_jax.checkpoint.best import (
    RECORD,
    Best,
    find_best,
    read_record,
    remove_record,
    validated_values,
    write_record,
)
from gpt2_jax.checkpoint.folders import step_folders
from gpt2_jax.checkpoint.pruning import remove_steps, steps_to_remove

_BEST = Best("max:eval/x", 8, 0.1)


def _run(folder: Path, best: str = "eval/loss") -> Path:
    """Returns the folder of checkpoints of a run with validations of the steps 2, 4, 6 and 8."""
    directory = folder / "checkpoints"
    directory.mkdir()
    lines = [
        '{"step": 2, "eval/loss": 3.0, "eval/x": 1}',
        '{"step": 3, "loss": 0.5}',
        '{"step": 4, "eval/loss": 1.0, "eval/x": 2}',
        '{"step": 6, "eval/loss": null}',
        '{"step": 8, "eval/loss": 2.0}',
        '{"step": 9, "eval/lo',
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "config.json").write_text(json.dumps({"checkpoint": {"best": best}}))
    return directory


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, _BEST)
    assert read_record(tmp_path) == _BEST
    written = (tmp_path / RECORD).stat()
    write_record(tmp_path, _BEST)  # which changes nothing
    assert (tmp_path / RECORD).stat() == written
    assert json.loads((tmp_path / RECORD).read_bytes()) == _BEST._asdict()
    for _ in range(2):
        remove_record(tmp_path)
        assert read_record(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"metric": "eval/loss", "step": 8}',
        '{"metric": "eval/loss", "step": "8", "value": 1.0}',
        '{"metric": "eval/loss", "step": -8, "value": 1.0}',
        '{"metric": "eval/loss", "step": 8, "value": NaN}',
        '{"metric": "eval/loss", "step": 8, "value": "1"}',
        '{"metric": "loss", "step": 8, "value": 1.0}',
        '{"metric": 8, "step": 8, "value": 1.0}',
        '{"metric": "eval/loss", "step": 8, "val',
    ],
)
def test_a_damaged_record_is_none_and_the_best_is_found_without_it(
    tmp_path: Path, content: str
) -> None:
    directory = _run(tmp_path)
    (directory / RECORD).write_text(content)
    assert read_record(directory) is None
    assert find_best(directory, [2, 4, 8]) == Best("eval/loss", 4, 1.0)


def test_the_best_has_a_checkpoint(tmp_path: Path) -> None:
    directory = _run(tmp_path)
    assert find_best(directory, [2, 6, 8]) == Best("eval/loss", 8, 2.0)
    assert find_best(directory, [6]) is None
    write_record(directory, Best("eval/loss", 4, 1.0))
    assert find_best(directory, [2, 8]) == Best("eval/loss", 8, 2.0)
    write_record(directory, Best("max:eval/x", 4, 2.0))  # which says what the number is
    assert find_best(directory, [2, 8]) == Best("max:eval/x", 2, 1.0)


def test_a_run_without_a_goal_or_validations_has_no_best_step(tmp_path: Path) -> None:
    directory = _run(tmp_path, best="")
    assert find_best(directory, [2, 4]) is None
    (tmp_path / "config.json").unlink()
    assert find_best(directory, [2, 4]) is None
    write_record(directory, _BEST)
    (tmp_path / "metrics.jsonl").unlink()
    assert find_best(directory, [2, 4]) is None
    assert find_best(directory, [2, 8]) == _BEST


def test_values_are_those_of_whole_lines_of_validations(tmp_path: Path) -> None:
    _run(tmp_path)
    values = validated_values(tmp_path, "eval/loss")
    assert list(values) == [2, 4, 6, 8] and math.isnan(values.pop(6))
    assert values == {2: 3.0, 4: 1.0, 8: 2.0}
    assert validated_values(tmp_path / "none", "eval/loss") == {}


def test_the_newest_the_multiples_and_the_best_are_kept() -> None:
    steps = [*range(10, 80, 10), 35]
    assert steps_to_remove(steps, keep=2, keep_every=30, also=[20]) == [10, 35, 40, 50]
    assert steps_to_remove(steps, keep=2, keep_every=None, also=[]) == [10, 20, 30, 35, 40, 50]
    rng = random.Random(0)
    for _ in range(200):
        steps = rng.sample(range(1, 60), rng.randrange(12))
        keep, every, also = rng.randint(1, 9), rng.choice([None, 1, 4]), rng.sample(range(60), 2)
        removed = steps_to_remove(steps, keep=keep, keep_every=every, also=also)
        kept = set(steps) - set(removed)
        assert set(removed) <= set(steps) and set(sorted(steps)[-keep:]) <= kept
        assert len(kept) <= keep or all(
            step in also or (every and step % every == 0) for step in sorted(kept)[:-keep]
        )


def test_an_interrupted_removal_leaves_no_part_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        (tmp_path / str(step) / "params").mkdir(parents=True)

    def fail(folder: Path) -> None:
        raise OSError(5, "Input/output error", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(pruning, "remove_tree", fail)
        remove_steps(tmp_path, [1])
    assert "1 was not removed: [Errno 5] Input/output error" in capsys.readouterr().err
    assert [path.name for path in step_folders(tmp_path, committed=True)] == ["2"]
    assert len(step_folders(tmp_path, committed=False)) == 1  # which the next start removes
    (tmp_path / "1" / "params").mkdir(parents=True)  # saved again, and removed again
    remove_steps(tmp_path, [1, 2])
    assert list(tmp_path.iterdir()) == []
    remove_steps(tmp_path, [3])
    assert capsys.readouterr().err.startswith("warning: the checkpoint ")
