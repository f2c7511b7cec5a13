from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gpt2_jax.training.metrics_file import last_evaluation, open_lines
from gpt2_jax.training.trackers import JsonLines
from tests.training.tiny import lines


def _write(workdir: Path, start: int, stop: int) -> None:
    """Writes the lines of the steps after `start`, as a run that starts there does."""
    tracker = JsonLines(workdir, start)
    for step in range(start + 1, stop + 1):
        tracker.log(step, {"loss": float(100 * start + step)})
        tracker.log(step, {"goodput": 0.5})
    tracker.close()


def _steps(workdir: Path) -> list[int]:
    """The steps in order, each of which must have both of its lines."""
    steps = [line["step"] for line in lines(workdir)]
    assert steps[::2] == steps[1::2]
    return steps[::2]


def test_a_resumed_run_replaces_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    _write(tmp_path, 0, 8)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    _write(tmp_path, 5, 7)
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert lines(tmp_path)[10]["loss"] == 506
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_unfinished_line_is_dropped_even_if_no_step_is_late(tmp_path: Path) -> None:
    _write(tmp_path, 0, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    _write(tmp_path, 2, 3)
    assert _steps(tmp_path) == [1, 2, 3]


def test_lines_that_a_kill_does_not_explain_are_dropped_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, 0, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"damaged\n" + path.read_bytes() + b'{"step": 3, "lo')
    _write(tmp_path, 2, 3)
    assert _steps(tmp_path) == [1, 2, 3]
    warning = f"warning: {path}: dropped malformed lines: 1 of 6\n"
    assert capfd.readouterr().err == warning


def test_a_run_that_died_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    _write(tmp_path, 0, 3)
    _write(tmp_path, 0, 2)
    assert _steps(tmp_path) == [1, 2]


def test_the_last_evaluation_is_of_valid_lines(tmp_path: Path) -> None:
    assert last_evaluation(tmp_path) == ({}, 0)
    tracker = JsonLines(tmp_path, 0)
    tracker.log(4, {"eval/loss": 2.5, "eval/bits_per_byte": math.nan})
    tracker.log(5, {"loss": 2.0})
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        for step in (b"-Infinity", b"NaN", b"true", b"-1", b'"6"', b"[" * 100_000):
            file.write(b'{"eval/loss": 1.0, "step": ' + step + b"}\n")
        file.write('{"step": 6, "eval/loss": 1.0}\n'.encode("utf-16"))
    assert last_evaluation(tmp_path) == ({"eval/loss": 2.5}, 4)
    open_lines(tmp_path / "metrics.jsonl", 9).close()
    assert [line["step"] for line in lines(tmp_path)] == [4, 5]


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path, 0)
    tracker.log(1, {"loss": math.nan, "grad_norm": -math.inf, "mfu": 0.5})
    tracker.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": None, "grad_norm": None, "mfu": 0.5}
