from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt2_jax.train.metrics import MetricsWriter, Throughput
from gpt2_jax.train.metrics_file import last_evaluation


def _rows(workdir: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def _events(workdir: Path) -> EventAccumulator:
    events = EventAccumulator(str(workdir / "tensorboard"))
    events.Reload()
    return events


def _scalars(workdir: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _events(workdir).Scalars(tag)]


def _opened(workdir: Path, start_step: int = 0, *, tensorboard: bool = False) -> MetricsWriter:
    writer = MetricsWriter(workdir)
    writer.open(start_step, tensorboard=tensorboard)
    return writer


def _write(workdir: Path, start: int, stop: int) -> None:
    writer = _opened(workdir, start, tensorboard=True)
    for step in range(start + 1, stop + 1):
        writer.write(step, {"loss": float(100 * start + step), "note": "x"})
    writer.close()


def test_rows_are_flushed_one_by_one(tmp_path: Path) -> None:
    writer = _opened(tmp_path)
    writer.write(10, {"loss": 2.5, "tokens": 1280, "eval/split": "val"})
    assert _rows(tmp_path) == [{"step": 10, "loss": 2.5, "tokens": 1280, "eval/split": "val"}]
    writer.close()
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    writer = _opened(tmp_path, tensorboard=True)
    writer.write(1, {"loss": 2.5, "eval/loss": 3.0, "note": "not a scalar"})
    writer.text(1, "sample", "def f():\n    return *1*")
    writer.histograms(1, {"wte": np.linspace(-1, 1, 100), "bad": np.array([math.nan, 1.0])})
    writer.close()
    events = _events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss", "eval/loss"}
    assert _scalars(tmp_path, "eval/loss") == [(1, 3.0)]
    text = events.Tensors("sample/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    def f():\n        return *1*"
    assert events.Histograms("wte")[0].histogram_value.num == 100
    assert events.Histograms("bad")[0].histogram_value.num == 1


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    writer = _opened(tmp_path, tensorboard=True)
    writer.write(1, {"loss": math.nan, "grad_norm": math.inf, "mfu": np.float32(0.5)})
    writer.close()
    assert _rows(tmp_path) == [{"step": 1, "loss": None, "grad_norm": None, "mfu": 0.5}]
    assert math.isnan(_scalars(tmp_path, "loss")[0][1])


def test_a_resumed_run_replaces_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    _write(tmp_path, 0, 8)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    _write(tmp_path, 5, 7)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    assert _rows(tmp_path)[5]["loss"] == 506
    assert [step for step, _ in _scalars(tmp_path, "loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert _scalars(tmp_path, "loss")[5] == (6, 506.0)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_torn_line_is_dropped_even_where_no_row_is_late(tmp_path: Path) -> None:
    _write(tmp_path, 0, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    _write(tmp_path, 2, 3)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]


def test_lines_that_a_kill_does_not_explain_are_dropped_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, 0, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"damaged\n" + path.read_bytes() + b'{"step": 3, "lo')
    _write(tmp_path, 2, 3)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]
    warned = f"warning: {path}: 1 of 4 lines are no rows of metrics, and are dropped\n"
    assert capfd.readouterr().err == warned


def test_the_last_evaluation_is_of_rows_that_are_rows(tmp_path: Path) -> None:
    assert last_evaluation(tmp_path) == ({}, 0)
    writer = _opened(tmp_path)
    writer.write(4, {"eval/loss": 2.5, "eval/bits_per_byte": math.nan})
    writer.write(5, {"loss": 2.0})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        for step in (b"-Infinity", b"NaN", b"true", b"-1", b'"6"', b"[" * 100_000):
            file.write(b'{"eval/loss": 1.0, "step": ' + step + b"}\n")
        file.write('{"step": 6, "eval/loss": 1.0}\n'.encode("utf-16"))
    assert last_evaluation(tmp_path) == ({"eval/loss": 2.5}, 4)
    _opened(tmp_path, 9).close()
    assert [row["step"] for row in _rows(tmp_path)] == [4, 5]


def test_a_run_that_died_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    _write(tmp_path, 0, 3)
    _write(tmp_path, 0, 2)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2]


def test_processes_other_than_the_first_write_nothing(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "w")
    writer.write(1, {"loss": 1.0})
    writer.text(1, "sample", "x")
    writer.histograms(1, {"wte": np.ones(3)})
    writer.flush()
    writer.close()
    assert not (tmp_path / "w").exists()


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_throughput_and_mfu_of_the_interval_without_its_pauses() -> None:
    clock = _Clock()
    throughput = Throughput(1000, 6e6, 12e9, clock)
    assert throughput.measure(1) == {}  # compiled within: no rate
    clock.now += 5
    with throughput.paused():
        clock.now += 100
    rates = throughput.measure(6)
    assert rates == {"tokens_per_second": 1000.0, "mfu": pytest.approx(0.5)}
    clock.now += 1
    assert throughput.measure(7)["tokens_per_second"] == 1000.0
    assert throughput.measure(7) == {}


def test_without_a_known_peak_there_is_no_mfu() -> None:
    clock = _Clock()
    throughput = Throughput(10, 1.0, None, clock)
    throughput.start(0)
    clock.now += 2
    assert throughput.measure(1) == {"tokens_per_second": 5.0}
