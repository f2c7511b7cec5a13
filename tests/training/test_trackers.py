from __future__ import annotations

import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt2_jax.config import from_dict, to_dict
from gpt2_jax.errors import UserError
from gpt2_jax.training.trackers import (
    JsonLines,
    TensorBoard,
    Trackers,
    WeightsAndBiases,
    open_trackers,
)
from tests.training.tiny import lines


def _events(workdir: Path) -> EventAccumulator:
    events = EventAccumulator(str(workdir / "tensorboard"))
    events.Reload()
    return events


def _scalars(workdir: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _events(workdir).Scalars(tag)]


def _config(**log: Any) -> Any:
    return from_dict({"log": {"tensorboard": False, **log}})


def test_lines_are_readable_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    trackers = open_trackers(_config(), tmp_path, 0)
    trackers.log(10, {"loss": np.float32(2.5), "tokens": 1280})
    trackers.text(10, "sample", "goes to samples/")
    trackers.histograms(10, {"wte": np.ones(3)})
    assert lines(tmp_path) == [{"step": 10, "loss": 2.5, "tokens": 1280}]
    trackers.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    trackers = open_trackers(_config(tensorboard=True), tmp_path, 0)
    trackers.log(1, {"loss": math.nan, "eval/loss": 3.0})
    trackers.text(1, "sample", "def f():\n    return *1*")
    histograms = {"wte": np.linspace(-1, 1, 100), "bad": np.array([math.nan, 1.0])}
    trackers.histograms(1, histograms | {"worse": np.array([math.inf])})
    trackers.close()
    assert lines(tmp_path) == [{"step": 1, "loss": None, "eval/loss": 3.0}]
    events = _events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss", "eval/loss"}
    assert _scalars(tmp_path, "eval/loss") == [(1, 3.0)]
    assert math.isnan(_scalars(tmp_path, "loss")[0][1])
    text = events.Tensors("sample/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    def f():\n        return *1*"
    counts = {tag: events.Histograms(tag)[0].histogram_value.num for tag in ("wte", "bad")}
    assert counts == {"wte": 100, "bad": 1} and "worse" not in events.Tags()["histograms"]


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    for start, stop in ((0, 8), (5, 7)):
        tracker = TensorBoard(tmp_path, start)
        for step in range(start + 1, stop + 1):
            tracker.log(step, {"loss": float(100 * start + step)})
        tracker.close()
    steps = _scalars(tmp_path, "loss")
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6, 7] and steps[5] == (6, 506.0)


class FakeRun:
    def __init__(self, run_id: str) -> None:
        self.id, self.calls = run_id, []

    def define_metric(self, *names: str, **settings: str) -> None:
        self.calls.append(("define_metric", *names, settings))

    def log(self, values: dict[str, Any]) -> None:
        self.calls.append(("log", values))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in place of `wandb`, which keeps what it was called with."""
    module = types.ModuleType("wandb")
    module.inits, module.run = [], FakeRun("abc123")  # type: ignore[attr-defined]

    def init(**settings: Any) -> FakeRun:
        module.inits.append(settings)  # type: ignore[attr-defined]
        return module.run  # type: ignore[attr-defined]

    module.init = init  # type: ignore[attr-defined]
    module.Html = lambda text: ("html", text)  # type: ignore[attr-defined]
    module.Histogram = lambda values: ("histogram", values.tolist())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases_gets_everything_under_the_steps_of_the_run(
    wandb: Any, tmp_path: Path
) -> None:
    workdir = tmp_path / "small"
    workdir.mkdir()
    config = _config(wandb="project")
    trackers = open_trackers(config, workdir, 0)
    assert wandb.inits == [
        {
            "project": "project",
            "id": None,
            "resume": "allow",
            "name": "small",
            "dir": str(workdir),
            "config": to_dict(config),
        }
    ]
    trackers.log(7, {"loss": np.float32(2.5)})
    trackers.text(7, "sample", "if a < b & c:")
    trackers.histograms(7, {"wte": np.array([1.0, math.nan])})
    trackers.flush()
    trackers.close()
    assert wandb.run.calls == [
        ("define_metric", "step", {}),
        ("define_metric", "*", {"step_metric": "step"}),
        ("log", {"step": 7, "loss": 2.5}),
        ("log", {"step": 7, "sample": ("html", "<pre>if a &lt; b &amp; c:</pre>")}),
        ("log", {"step": 7, "wte": ("histogram", [1.0])}),
        ("finish",),
    ]
    assert lines(workdir) == [{"step": 7, "loss": 2.5}]


def test_a_resumed_run_continues_its_run_at_weights_and_biases(wandb: Any, tmp_path: Path) -> None:
    for expected in (None, "abc123"):
        WeightsAndBiases(_config(wandb="project"), tmp_path).close()
        assert wandb.inits[-1]["id"] == expected
    assert (tmp_path / "wandb_id").read_text() == "abc123\n"


def test_weights_and_biases_that_does_not_start_is_one_line(wandb: Any, tmp_path: Path) -> None:
    def refuse(**settings: Any) -> None:
        raise RuntimeError("api_key not configured\n(no-tty)")

    wandb.init = refuse
    with pytest.raises(UserError) as error:
        open_trackers(_config(wandb="project"), tmp_path, 0)
    message = str(error.value)
    assert "\n" not in message and "log.wandb=project" in message
    assert "api_key not configured (no-tty)" in message and "WANDB_MODE=offline" in message
    assert not (tmp_path / "wandb_id").exists()


def test_weights_and_biases_without_its_extra_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"log\.wandb needs .*'gpt2_jax\[wandb\]'"):
        WeightsAndBiases(_config(wandb="project"), tmp_path)


class Custom:
    """A tracker that keeps what it was called with, and fails on request."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fails = False

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if self.fails:
            raise ConnectionError("the service is\ngone")

    def log(self, step: int, values: Any) -> None:
        self._call("log", step, values)

    def text(self, step: int, name: str, text: str) -> None:
        self._call("text", step, name, text)

    def histograms(self, step: int, arrays: Any) -> None:
        self._call("histograms", step, sorted(arrays))

    def flush(self) -> None:
        self._call("flush")

    def close(self) -> None:
        self._call("close")


def test_a_custom_tracker_that_fails_is_warned_of_once_and_stops_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    custom = Custom()
    trackers = Trackers([custom, JsonLines(tmp_path, 0)])
    trackers.log(1, {"loss": np.int32(2)})
    trackers.histograms(1, {"wte": [1, 2]})
    custom.fails = True
    trackers.log(2, {"loss": 1.0})
    trackers.text(2, "sample", "text")
    trackers.flush()
    trackers.close()
    assert custom.calls == [
        ("log", 1, {"loss": 2}),
        ("histograms", 1, ["wte"]),
        ("log", 2, {"loss": 1.0}),
        ("text", 2, "sample", "text"),
        ("flush",),
        ("close",),
    ]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert capfd.readouterr().err == (
        "warning: Custom has failed (ConnectionError('the service is\\ngone')); its records are "
        "no longer complete\n"
    )
