"""Tests that the explorer leaves the engine alone, and works for nobody who has left."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpt2_jax.serve import explorer as explorer_lib
from tests.serve.serving import CONTEXT, SLOTS, Client

_TEXT = "xyz ab"


@pytest.fixture(scope="module")
def run(server: Client) -> dict[str, Any]:
    """The run of one text without changes."""
    return server.explore(text=_TEXT)


def test_the_engine_shows_what_its_slots_hold(client: Client) -> None:
    idle = client.get("/explore/v1/engine").json
    assert len(idle["slots"]) == SLOTS
    assert not any(slot["busy"] for slot in idle["slots"])
    assert (idle["queued"], idle["waiting"], idle["cache"]["used_bytes"]) == (0, 0, 0)
    # Keys and values of one layer, 32 wide, in float32.
    assert idle["cache"]["total_bytes"] == 2 * SLOTS * CONTEXT * 32 * 4
    with _endless(client) as response:
        response.readline()
        busy = client.get("/explore/v1/engine").json
        (slot,) = [slot for slot in busy["slots"] if slot["busy"]]
        assert slot["prompt_tokens"] == 1
        assert slot["drawn"] >= 1
        assert 1 <= slot["length"] <= CONTEXT
        assert busy["cache"]["used_bytes"] == 2 * slot["length"] * 32 * 4
    client.wait_until_idle()
    assert client.get("/explore/v1/engine").json == idle


@contextlib.contextmanager
def _endless(client: Client) -> Iterator[Any]:
    """A completion in events that ends only when it is left."""
    body = {"model": "tiny", "prompt": [1], "max_tokens": 10**6, "stream": True}
    body |= {"context_overflow": "slide", "ignore_eos": True}
    with contextlib.closing(client.connect()) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        with contextlib.closing(connection.getresponse()) as response:
            yield response


@contextlib.contextmanager
def _held(client: Client) -> Iterator[None]:
    """Keeps the explorer's thread from working in the block."""
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ended.wait(20)

    client.explorer._thread.submit(hold)
    assert begun.wait(20)
    try:
        yield
    finally:
        ended.set()


def test_completions_go_on_while_the_explorer_works(client: Client) -> None:
    with _held(client), _endless(client) as response:
        for _ in range(20):
            assert response.readline()
        assert client.get("/healthz").status == 200
        assert client.get("/explore/v1/engine").json["slots"]
    client.wait_until_idle()


def test_what_a_client_did_not_wait_for_is_not_computed(
    client: Client, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    insights = client.explorer.insights
    array = insights.array
    monkeypatch.setattr(
        insights, "array", lambda name, address: asked.append(address) or array(name, address)
    )
    with _held(client):
        for address in ("norms", "logits"):
            connection = client.connect()
            connection.request("GET", f"/explore/v1/run/{run['run']}/{address}.npy")
            _wait_for(lambda: client.explorer._waiting == 1)
            connection.close()
            _wait_for(lambda: client.explorer._waiting == 0)
    client.array(run["run"], "tokens")
    assert asked == ["tokens"]


def test_no_more_work_waits_than_there_is_room_for(
    client: Client, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer_lib, "MOST_WAITING", 0)
    reply = client.get(f"/explore/v1/run/{run['run']}/logits.npy")
    assert (reply.status, reply.error["code"]) == (429, "queue_full")
    assert "retry-after" in reply.headers


def _wait_for(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
