"""Tests which models a server offers: those named, and the saved steps of their runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.serve import models as models_lib
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.models import Models, named_models
from gpt2_jax.serve.served import Limits
from tests.serve.serving import (
    CONTEXT,
    Client,
)


def test_models_are_named_by_their_folders_or_by_hand(
    saved_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = saved_run / "checkpoints" / "2"
    assert named_models([str(saved_run), f"big={saved_run}", str(step)]) == {
        "small": str(saved_run),
        "big": str(saved_run),
        "small@2": str(step),
    }
    assert named_models(["org/name"]) == {"name": "org/name"}
    assert named_models(["org/mine=gs://b/a=b"]) == {"org/mine": "gs://b/a=b"}
    monkeypatch.chdir(saved_run)
    assert named_models(["."]) == {"small": "."}
    assert named_models(["checkpoints/best"]) == {"small@best": "checkpoints/best"}
    with pytest.raises(UserError, match="two models are named small"):
        named_models([str(saved_run), str(saved_run)])
    for word in ("a b=runs/x", "=runs/x", "small="):
        with pytest.raises(UserError, match="must be PATH or NAME=PATH: a name has letters"):
            named_models([word])


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


def test_a_step_that_is_named_by_its_folder_is_listed_once(saved_run: Path) -> None:
    def served(name: str, step: int) -> Any:
        path = saved_run / "checkpoints" / str(step)
        return SimpleNamespace(
            name=name, path=path, created=1, worker=SimpleNamespace(max_length=9)
        )

    models = Models([served("small", 4), served("small@2", 2)], Limits(), Metrics())
    assert [entry["id"] for entry in models.listed()] == ["small", "small@4", "small@2"]
    assert models.entry("small@2")["id"] == "small@2"


def test_a_model_without_a_run_has_no_steps(client: Client) -> None:
    (entry,) = client.get("/v1/models").json["data"]
    assert entry == client.get("/v1/models/tiny").json
    assert (entry["id"], entry["object"], entry["max_model_len"]) == ("tiny", "model", CONTEXT)
