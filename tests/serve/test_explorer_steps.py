"""Tests the explorer on a run: its saved steps, and the room that they take."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.formats.load import load
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.serve import subjects, worker
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.served import Limits
from gpt2_jax.serve.subjects import Subjects
from tests.inference.tiny import make_run
from tests.serve.serving import SLOTS, Client, pieces_tokenizer, served_config, serving

_STEPS = (2, 4, 6, 8)
_TEXT = "ab xyz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    tokenizer = pieces_tokenizer()
    for step in _STEPS:
        make_run(folder, served_config(tokenizer), tokenizer, step=step, seed=step)
    return folder


@pytest.fixture(scope="module")
def explored(run: Path) -> Iterator[Client]:
    """A server whose engine compiles nothing, because nothing is generated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "warm_start", lambda engine: None)
        patch.setattr(subjects, "MOST_STEP_BYTES", 0)
        with serving(path=run, limits=Limits(num_slots=SLOTS)) as client:
            yield client


def _expected(folder: Path, step: int) -> np.ndarray:
    model = load(folder / "checkpoints" / str(step))
    subject = Subject(model.config, model.params, model.tokenizer)
    return Inspection(Run(subject, model.tokenizer.encode(_TEXT)))["logits"]


def test_every_saved_step_can_be_looked_into(explored: Client, run: Path) -> None:
    names = set()
    for step in (2, 6):
        found = explored.explore(text=_TEXT, step=step)
        assert found["step"] == step
        logits = explored.array(found["run"], "logits")
        np.testing.assert_array_equal(logits, _expected(run, step))
        names.add(found["run"])
    assert len(names) == 2
    served = explored.explore(text=_TEXT)
    assert (served["step"], served["run"] in names) == (8, False)


def test_steps_are_listed_and_the_last_two_stay_in_memory(explored: Client) -> None:
    (entry,) = explored.get("/explore/v1/models").json
    assert (entry["step"], entry["steps"]) == (8, [*_STEPS])
    first = explored.explore(text=_TEXT, step=2)["run"]
    explored.explore(text=_TEXT, step=4)
    assert explored.get("/explore/v1/steps").json["loaded"] == [2, 4, 8]
    assert explored.get(f"/explore/v1/run/{first}/logits.npy").status == 200
    # The runs of a step that makes room go with it: they would keep its parameters.
    explored.explore(text=_TEXT, step=6)
    assert explored.get("/explore/v1/steps?model=tiny").json["loaded"] == [4, 6, 8]
    assert explored.get(f"/explore/v1/run/{first}/logits.npy").status == 410
    assert explored.explore(text=_TEXT, step=2)["run"] == first
    assert explored.get(f"/explore/v1/run/{first}/logits.npy").status == 200


def test_a_step_that_makes_room_leaves_nothing_in_memory(explored: Client) -> None:
    subjects = explored.explorer.insights.subjects
    explored.explore(text=_TEXT, step=2)
    weights = weakref.ref(subjects.get(None, 2).subject)
    explored.post("/explore/v1/curves", text=_TEXT)  # which loads the other steps, and runs none
    assert explored.get("/explore/v1/steps").json["loaded"] == [4, 6, 8]
    gc.collect()
    assert weights() is None


def test_curves_come_line_by_line(explored: Client, run: Path) -> None:
    reply = explored.post("/explore/v1/curves", model="tiny", text=_TEXT)
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["step"] for line in lines] == [*_STEPS]
    assert lines[-1]["kl"] == 0 < lines[0]["kl"]
    for line in lines[1:]:
        whole = explored.explore(text=_TEXT, step=line["step"])
        losses = [-token["logprob"] for token in whole["tokens"][1:]]
        np.testing.assert_allclose(line["loss"], np.mean(losses), rtol=1e-6)
        scores = explored.array(whole["run"], "head_scores")
        np.testing.assert_array_equal(np.float32(line["head_scores"]), scores)
    refused = explored.post("/explore/v1/curves", text="x" * 99)
    assert (refused.status, refused.error["param"]) == (400, "text")


def test_curves_stop_when_the_client_leaves(
    explored: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    go_on = threading.Event()
    insights = explored.explorer.insights

    def points(values: Any) -> Iterator[dict[str, int]]:
        for step in range(1000):
            read.append(step)
            if step == 2:
                go_on.wait(20)
            yield {"step": step}

    monkeypatch.setattr(insights, "curves", points)
    with contextlib.closing(explored.connect()) as connection:
        body = json.dumps({"text": _TEXT})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/explore/v1/curves", body, headers)
        with contextlib.closing(connection.getresponse()) as response:
            assert json.loads(response.readline()) == {"step": 0}
    time.sleep(0.1)
    go_on.set()
    explored.explore(text=_TEXT)  # behind what was begun
    assert len(read) < 10


def test_a_failure_on_the_way_is_the_last_line(
    explored: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects_get = explored.explorer.insights.subjects.get

    def get(name: str | None, step: int | None = None) -> Any:
        if step == 4:
            raise ApiError(404, "gone", param="step", code="step_not_found")
        return subjects_get(name, step)

    monkeypatch.setattr(explored.explorer.insights.subjects, "get", get)
    reply = explored.post("/explore/v1/curves", text=_TEXT)
    first, last = [json.loads(line) for line in reply.body.splitlines()]
    assert (reply.status, first["step"], last["error"]["param"]) == (200, 2, "step")


def test_a_step_that_is_not_there_is_named(explored: Client, run: Path) -> None:
    reply = explored.post("/explore/v1/run", text=_TEXT, step=3)
    assert (reply.status, reply.error["param"], reply.error["code"]) == (
        404,
        "step",
        "step_not_found",
    )
    assert "2, 4, 6, 8" in reply.error["message"]


def test_a_damaged_step_is_told_and_leaves_the_others(
    explored: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insights = explored.explorer.insights
    tokenizer = pieces_tokenizer()
    broken = make_run(tmp_path / "small", served_config(tokenizer), tokenizer, step=3)
    for file in (broken / "checkpoints" / "3" / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    folder = broken / "checkpoints" / "3"
    monkeypatch.setattr(subjects, "_folder", lambda model, step: folder)
    insights.subjects._steps.drop(lambda shown: True)
    reply = explored.post("/explore/v1/run", text=_TEXT, step=2)
    assert (reply.status, reply.error["param"], reply.error["code"]) == (
        503,
        "step",
        "step_unreadable",
    )
    assert explored.explore(text=_TEXT)["step"] == 8


def test_the_parameters_are_those_that_the_server_generates_with(explored: Client) -> None:
    model = explored.models.default
    assert Subjects.is_shared(model)
    explored.explore(text=_TEXT)
    mine = explored.explorer.insights.subjects.get(None).subject.params
    for ours, theirs in zip(jax.tree.leaves(mine), jax.tree.leaves(model.params), strict=True):
        assert ours.unsafe_buffer_pointer() == theirs.unsafe_buffer_pointer()


@pytest.mark.slow
def test_a_model_in_bfloat16_is_looked_into_in_float32(explored: Client, run: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "warm_start", lambda engine: None)
        limits = Limits(num_slots=SLOTS, dtype="bfloat16")
        with serving(path=run, limits=limits) as client:
            assert not Subjects.is_shared(client.models.default)
            found = client.explore(text=_TEXT)
            assert found["run"] == explored.explore(text=_TEXT)["run"]
            logits = client.array(found["run"], "logits")
            np.testing.assert_array_equal(logits, _expected(run, 8))
