"""Tests which models a server offers: those named, and the saved steps of their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.serve import models as models_lib
from gpt2_jax.serve.models import Limits, named_models
from tests.inference.tiny import make_run
from tests.serve.serving import (
    CONTEXT,
    SLOTS,
    Client,
    pieces_tokenizer,
    served_config,
    serving,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    tokenizer = pieces_tokenizer()
    config = served_config(tokenizer)
    for step in (2, 4):
        make_run(folder, config, tokenizer, step=step)
    return folder


def test_models_are_named_by_their_folders_or_by_hand(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = run / "checkpoints" / "2"
    assert named_models([str(run), f"big={run}", str(step)]) == {
        "small": str(run),
        "big": str(run),
        "small@2": str(step),
    }
    assert named_models(["org/name"]) == {"name": "org/name"}
    assert named_models(["org/mine=gs://b/a=b"]) == {"org/mine": "gs://b/a=b"}
    monkeypatch.chdir(run)
    assert named_models(["."]) == {"small": "."}
    assert named_models(["checkpoints/best"]) == {"small@best": "checkpoints/best"}
    with pytest.raises(UserError, match="two models are named small"):
        named_models([str(run), str(run)])


def test_the_best_steps_of_two_runs_have_two_names(tmp_path: Path) -> None:
    places = [tmp_path / run / "checkpoints" / step for run in "ab" for step in ("best", "newest")]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    words = [str(place) for place in places]
    names = ["a@best", "a@newest", "b@best", "b@newest"]
    assert [*named_models(words)] == names
    # NAME@STEP stays apart, also where NAME is such a name.
    assert not any(models_lib._STEP.fullmatch(name) for name in names)
    assert not models_lib._STEP.fullmatch("a@04") and models_lib._STEP.fullmatch("a@0")
    match = models_lib._STEP.fullmatch("a@best@4")
    assert match and match.groups() == ("a@best", "4")
    assert named_models([f"mine={words[0]}", words[0]]) == {"mine": words[0], "a@best": words[0]}
    assert named_models(["gs://b/run/checkpoints/best"]) == {
        "run@best": "gs://b/run/checkpoints/best"
    }
    # There is no such folder here: it is an id of the hub.
    assert named_models(["checkpoints/best"]) == {"best": "checkpoints/best"}
    with pytest.raises(UserError, match="two models are named a@best"):
        named_models(words[:1] * 2)


def test_saved_steps_are_listed_and_loaded_when_asked_for(run: Path) -> None:
    with serving(path=run, limits=Limits(num_slots=SLOTS, steps=1)) as client:
        listed = [model["id"] for model in client.get("/v1/models").json["data"]]
        assert listed == ["tiny", "tiny@4", "tiny@2"]
        assert client.get("/v1/models/tiny@2").json["max_model_len"] == CONTEXT
        newest = client.complete(seed=1)
        for name in ("tiny@4", "tiny@2", "tiny@4"):
            reply = client.post("/v1/completions", model=name, prompt="ab", seed=1)
            assert reply.status == 200, reply
            assert reply.json["model"] == name
            # Both steps of this run have the same parameters.
            assert reply.json["choices"] == newest["choices"]
            assert reply.json["system_fingerprint"] == newest["system_fingerprint"]
            assert len(client.models.all) == 2
            assert client.metric("num_requests_running", model_name=name) == 0
        reply = client.post("/v1/completions", model="tiny@3")
        assert (reply.status, reply.error["param"]) == (404, "model")
        assert client.post("/tokenize", model="tiny@2", prompt="ab").status == 200


def test_steps_are_loaded_only_as_many_as_there_is_room_for(run: Path) -> None:
    with serving(path=run, limits=Limits(num_slots=SLOTS, steps=0)) as client:
        reply = client.post("/v1/completions", model="tiny@2")
        assert (reply.status, reply.error["code"]) == (503, "steps_busy")
        assert client.complete()["choices"]


def test_a_model_without_a_run_has_no_steps(client: Client) -> None:
    (entry,) = client.get("/v1/models").json["data"]
    assert entry == client.get("/v1/models/tiny").json
    assert (entry["id"], entry["object"], entry["max_model_len"]) == ("tiny", "model", CONTEXT)


def test_a_step_that_cannot_start_leaves_the_others_ready(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Any) -> None:
        raise RuntimeError("out of\nmemory")

    with serving(path=run, limits=Limits(num_slots=SLOTS, steps=1)) as client:
        monkeypatch.setattr("gpt2_jax.serve.worker.warm_start", fail)
        for _ in range(2):
            reply = client.post("/v1/completions", model="tiny@2")
            assert (reply.status, reply.error["code"]) == (503, "step_unreadable"), reply
            assert "out of memory" in reply.error["message"]
            assert client.get("/healthz").status == 200
        assert len(client.models.all) == 1
        monkeypatch.undo()
        assert client.post("/v1/completions", model="tiny@2").status == 200
