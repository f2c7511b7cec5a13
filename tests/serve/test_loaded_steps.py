"""Tests saved steps of runs: loaded when asked for, kept while in use, let go at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt2_jax.serve import loaded_steps
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.loaded_steps import LoadedSteps
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.served import Limits
from gpt2_jax.serve.worker import State
from tests.serve.serving import CONTEXT, SLOTS, serving


def test_saved_steps_are_listed_and_loaded_when_asked_for(saved_run: Path) -> None:
    with serving(path=saved_run, limits=Limits(num_slots=SLOTS, steps=1)) as client:
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


def test_steps_are_loaded_only_as_many_as_there_is_room_for(saved_run: Path) -> None:
    with serving(path=saved_run, limits=Limits(num_slots=SLOTS, steps=0)) as client:
        reply = client.post("/v1/completions", model="tiny@2")
        assert (reply.status, reply.error["code"]) == (503, "steps_busy")
        assert client.complete()["choices"]


def test_a_step_that_cannot_start_leaves_the_others_ready(
    saved_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Any) -> None:
        raise RuntimeError("out of\nmemory")

    with serving(path=saved_run, limits=Limits(num_slots=SLOTS, steps=1)) as client:
        monkeypatch.setattr("gpt2_jax.serve.worker.warm_start", fail)
        for _ in range(2):
            reply = client.post("/v1/completions", model="tiny@2")
            assert (reply.status, reply.error["code"]) == (503, "step_unreadable"), reply
            assert "out of memory" in reply.error["message"]
            assert client.get("/healthz").status == 200
        assert len(client.models.all) == 1
        monkeypatch.undo()
        assert client.post("/v1/completions", model="tiny@2").status == 200


def _fake_steps(most: int = 1) -> LoadedSteps:
    """Steps that load at once, and never do anything."""

    def load(name: str, folder: Path) -> Any:
        nothing = lambda: None  # noqa: E731
        worker = SimpleNamespace(idle=True, state=State.READY, drain=nothing, stop=nothing)
        return SimpleNamespace(name=name, worker=worker)

    steps = LoadedSteps(Limits(steps=most), Metrics())
    steps._load = load  # type: ignore
    return steps


def test_a_step_in_use_makes_no_room_for_another() -> None:
    async def run() -> None:
        steps = _fake_steps()
        async with steps.using("a@1", Path()) as model:
            with pytest.raises(ApiError, match="1 saved steps are in memory and in use") as caught:
                async with steps.using("a@2", Path()):
                    pass
            assert caught.value.code == "steps_busy"
            async with steps.using("a@1", Path()) as again:
                assert again is model
        async with steps.using("a@2", Path()):
            assert [model.name for model in steps.all] == ["a@2"]

    asyncio.run(run())


def test_the_step_that_was_not_used_for_longest_makes_room() -> None:
    async def run() -> None:
        steps = _fake_steps(most=2)
        for name in ("a@1", "a@2", "a@1", "a@3"):
            async with steps.using(name, Path()):
                pass
        assert [model.name for model in steps.all] == ["a@1", "a@3"]

    asyncio.run(run())


def test_a_server_that_ends_does_not_wait_for_a_step_that_loads(
    saved_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def load(*_: Any) -> Any:
        began.set()
        go_on.wait(60)
        raise AssertionError("nobody waits for it")

    monkeypatch.setattr(loaded_steps, "load_served", load)
    with ThreadPoolExecutor(2) as pool:
        with serving(path=saved_run, limits=Limits(num_slots=SLOTS)) as client:
            # One loads, the other waits for its turn.
            replies = [
                pool.submit(client.post, "/v1/completions", model=f"tiny@{step}") for step in (2, 4)
            ]
            assert began.wait(20)
            loop = client.server.servers[0].get_loop()
            started = time.monotonic()
            loop.call_soon_threadsafe(client.server.drain)
            for reply in replies:
                assert (reply.result().status, reply.result().error["code"]) == (503, "draining")
        assert time.monotonic() - started < 15  # the server has ended
        assert client.models.steps.loading
        go_on.set()
