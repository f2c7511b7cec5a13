"""Tests the queue, cancellation, failures and the end of a server under load.

It is long because all of these are ways of one thread to go on, and share how they are provoked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.requests import Request
from gpt2_jax.serve.app import Policy, make_app
from gpt2_jax.serve.job import Job, Update
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.served import Limits
from gpt2_jax.serve.worker import State
from tests.serve.serving import CONTEXT, SLOTS, Client, Reply, chunks, joined, serving


@contextlib.contextmanager
def _slow(client: Client, seconds: float = 0.02) -> Iterator[threading.Event]:
    """Makes each step of the engine take its time; the event, once cleared, holds steps up."""
    step, gate = Engine.step, threading.Event()
    gate.set()

    def slow(engine: Engine) -> None:
        gate.wait(20)
        time.sleep(seconds)
        step(engine)

    client.engine.step = lambda: slow(client.engine)
    try:
        yield gate
    finally:
        gate.set()
        del client.engine.step


@contextlib.contextmanager
def _threads() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(40) as pool:
        yield pool.submit


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


_LONG = {"max_tokens": 100, "context_overflow": "slide", "ignore_eos": True}


def _said(reply: Reply) -> Any:
    assert reply.status == 200, reply
    if reply.headers["content-type"].startswith("text/event-stream"):
        return joined(chunks(reply.body))
    return {choice["index"]: choice for choice in reply.json["choices"]}


_REQUESTS: list[dict[str, Any]] = [
    {"prompt": "xy", "max_tokens": 25, "seed": 1, "logprobs": 3},
    {"prompt": [7] * 20, "max_tokens": 9, "seed": 2, "temperature": 0.7, "top_p": 0.9},
    {"prompt": "hello", "max_tokens": 12, "seed": 3, "n": 3, "top_k": 5},
    {"prompt": ["a", "bc"], "max_tokens": 14, "seed": 4, "echo": True, "logprobs": 0},
    {"prompt": "q", "max_tokens": 20, "temperature": 0, "logit_bias": {"40": 5}},
    {"prompt": "zz", "max_tokens": 18, "seed": -5, "stop": ["a", "e"], "min_p": 0.05},
    {"prompt": "go on", "max_tokens": 60, "seed": 6, "context_overflow": "slide"},
    {"prompt": "pen", "max_tokens": 16, "seed": 7, "presence_penalty": 1.5, "logprobs": 20},
]


def test_a_seeded_request_is_the_same_in_any_company(client: Client) -> None:
    """Case 14."""
    post = lambda **fields: client.post("/v1/completions", model="tiny", **fields)  # noqa: E731
    alone = [_said(post(**fields)) for fields in _REQUESTS]
    rng = np.random.default_rng(0)
    with _threads() as start:
        for _ in range(3):
            running = {}
            for number in rng.permutation(len(_REQUESTS)).tolist():
                stream = bool(rng.integers(0, 2))
                running[number] = start(post, **_REQUESTS[number], stream=stream)
                start(post, prompt="noise", max_tokens=int(rng.integers(1, 20)))
                time.sleep(float(rng.uniform(0, 0.005)))
            for number, future in running.items():
                assert _said(future.result()) == alone[number], _REQUESTS[number]


def test_without_a_seed_every_answer_is_another(client: Client) -> None:
    """Case 15."""
    with _threads() as start:
        futures = [start(client.complete, "same", max_tokens=20) for _ in range(4)]
        answers = [future.result() for future in futures]
    assert len({answer["choices"][0]["text"] for answer in answers}) == 4
    assert len({answer["seed"] for answer in answers}) == 4
    (one, two) = client.complete(["same", "same"], max_tokens=20)["choices"]
    assert one["text"] != two["text"]


def _open(client: Client, **fields: Any) -> socket.socket:
    body = json.dumps({"model": "tiny", **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", client.port))
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_their_slots_and_change_nothing(
    client: Client, stream: bool
) -> None:
    """Case 18: clients leave while they are queued, read and decoded."""
    kept = {"prompt": "stay", "max_tokens": 25, "seed": 9, "logprobs": 1}
    expected = client.complete(**kept)["choices"]
    cancelled = client.metric("requests_cancelled_total")
    with _slow(client) as gate, _threads() as start:
        staying = start(client.complete, **kept)
        _until(lambda: client.engine.num_running == 1)
        gone = [_open(client, prompt=[3] * 20, max_tokens=10, n=2, stream=stream) for _ in range(5)]
        _until(lambda: client.worker.num_waiting >= 4)
        gate.clear()
        for connection in gone:
            connection.close()
        _until(lambda: client.worker.num_waiting <= 4)
        _until(lambda: len(client.worker._queue) == 0)
        gate.set()
        _until(lambda: client.engine.num_running + client.engine.num_waiting <= 1)
        after = start(client.complete, "after", max_tokens=3, seed=1)
        assert staying.result()["choices"] == expected
        answer = after.result()["choices"]
    assert answer == client.complete("after", max_tokens=3, seed=1)["choices"]
    assert client.metric("requests_cancelled_total") == cancelled + 5


def test_a_reader_that_is_suspended_is_left_and_costs_no_other(client: Client) -> None:
    """Case 18: the engine never waits, and the slot is free."""
    app = make_app(client.models, Metrics(), Policy(send_seconds=0.2))
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 30, "stream": True})

    async def read_nothing() -> None:
        sent = [{"type": "http.request", "body": body.encode()}]

        async def receive() -> Any:
            return sent.pop() if sent else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            **{"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers},
            **{"query_string": b"", "client": ("1.2.3.4", 5), "root_path": "", "scheme": "http"},
        }
        await app(scope, receive, send)

    with _slow(client):
        started = time.monotonic()
        asyncio.run(read_nothing())
        assert time.monotonic() - started < 5
        _until(lambda: client.worker.idle)


def test_tokens_that_nobody_takes_are_bounded() -> None:
    async def post() -> list[bool]:
        job = Job([Request([1], 9, num_choices=2)], "client")
        update = Update(1, "x", [1] * 400, [], [], None)
        return [job.post([update]) for _ in range(3)]

    assert asyncio.run(post()) == [True, True, False]


def test_two_prompts_that_end_while_nobody_reads_cost_no_other_client() -> None:
    with serving() as client:

        def job(name: str) -> Job:
            return Job([Request([1], 3), Request([2], 3)], name)

        async def run() -> tuple[Job, Job]:
            unread, read = job("slow"), job("other")
            unread.post = lambda updates: False  # type: ignore
            client.worker.submit(unread)
            client.worker.submit(read)
            while not read.complete:
                await read.next()
            while not unread.ended:
                await asyncio.sleep(0.01)
            return unread, read

        engine = client.engine
        unread, read = asyncio.run(asyncio.wait_for(run(), 20))
        assert unread.ended and read.complete and not read.ended
        assert client.worker._engine is engine  # it has not failed
        client.wait_until_idle()


def test_a_refused_request_is_not_one_whose_client_left() -> None:
    with serving() as client:
        client.worker._most_queued = 0
        reply = client.post("/v1/completions", model="tiny")
        assert reply.status == 429
        assert not client.worker._cancelled
        assert client.post("/v1/score", model="tiny", prompt="ab").status == 429
        assert not client.worker._cancelled


def test_a_worker_that_cannot_go_on_is_idle() -> None:
    with serving() as client, _threads() as start, _slow(client) as gate:
        running = [
            start(client.post, "/v1/completions", model="tiny", **_LONG) for _ in range(SLOTS)
        ]
        _until(lambda: client.engine.num_running == SLOTS)
        gate.clear()
        waiting = start(client.post, "/v1/completions", model="tiny")
        _until(lambda: len(client.worker._queue) == 1)
        client.engine._slots = None
        client.worker._make_engine = lambda: 1 / 0  # type: ignore
        gate.set()
        assert {future.result().status for future in [*running, waiting]} == {500}
        _until(lambda: client.worker.idle)
        assert client.worker.state is State.FAILED


def test_a_full_queue_is_said_and_so_is_a_long_wait() -> None:
    with serving(limits=Limits(num_slots=SLOTS, queue_seconds=0.3)) as client, _threads() as start:
        client.worker._most_queued = 6
        with _slow(client) as gate:
            filling = [start(client.complete, **_LONG) for _ in range(SLOTS)]
            _until(lambda: client.engine.num_running == SLOTS)
            gate.clear()
            queued = start(client.post, "/v1/completions", model="tiny", prompt=["a"] * 5)
            _until(lambda: len(client.worker._queue) == 5)
            refused = client.post("/v1/completions", model="tiny", prompt=["a", "b"], stream=True)
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.error["code"] == "queue_full"
            time.sleep(0.4)
            gate.set()
            assert (queued.result().status, queued.result().error["code"]) == (
                504,
                "queue_timeout",
            )
            assert all(future.result()["choices"] for future in filling)
        client.wait_until_idle()


def test_a_step_that_fails_is_told_and_the_next_request_is_fine() -> None:
    with serving() as client:
        expected = client.complete(seed=1)["choices"]

        def fail() -> None:
            client.engine._slots = None
            raise RuntimeError("the device\nis gone")

        client.engine.step = fail
        for stream in (False, True):
            reply = client.post("/v1/completions", model="tiny", stream=stream)
            assert reply.status == 500
            assert reply.error["message"] == "the engine failed: RuntimeError: the device is gone"
            assert reply.error["type"] == "server_error"
            assert client.complete(seed=1)["choices"] == expected
            client.engine.step = fail
        del client.engine.step
        client.engine.submit = lambda request: 1 / 0  # type: ignore
        assert client.post("/v1/completions", model="tiny").status == 500
        del client.engine.submit
        assert client.complete(seed=1)["choices"] == expected
        client.wait_until_idle()


def test_a_failure_behind_the_status_is_an_event(client: Client) -> None:
    with _slow(client), _threads() as start:
        future = start(client.post, "/v1/completions", model="tiny", **_LONG, stream=True)
        _until(
            lambda: client.engine.num_running == 1 and client.worker._running.parts[0].seen[0] > 20
        )
        client.worker._running.parts[0].job.fail(_error())
        reply = future.result()
    events = reply.body.decode().split("\n\n")
    assert reply.status == 200
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "test"
    assert "[DONE]" not in reply.body.decode()


def _error() -> Any:
    from gpt2_jax.serve.errors import ApiError

    return ApiError(500, "a test", code="test")


def test_a_server_that_ends_finishes_what_runs_and_refuses_the_rest() -> None:
    with serving() as client, _threads() as start:
        expected = client.complete(max_tokens=20, seed=1)["choices"]
        with _slow(client) as gate:
            running = [start(client.complete, max_tokens=20, seed=1) for _ in range(SLOTS)]
            _until(lambda: client.engine.num_running == SLOTS)
            gate.clear()
            queued = start(client.post, "/v1/completions", model="tiny")
            _until(lambda: len(client.worker._queue) == 1)
            loop = client.worker._running.parts[0].job._loop
            loop.call_soon_threadsafe(client.server.drain)
            reply = queued.result()
            assert (reply.status, reply.error["code"]) == (503, "draining")
            assert reply.headers["retry-after"] == "1"
            late = client.post("/v1/completions", model="tiny", stream=True)
            assert late.status == client.get("/healthz").status == 503
            assert client.get("/v1/models").status == 200
            gate.set()
            assert all(future.result()["choices"] == expected for future in running)


def test_a_server_that_is_not_ready_says_so() -> None:
    release = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2_jax.serve.worker.warm_start", lambda engine: release.wait(20))
        with serving(ready=False) as client:
            for reply in (client.get("/healthz"), client.post("/v1/completions", model="tiny")):
                assert (reply.status, reply.error["code"]) == (503, "warming")
            assert client.metric("requests_rejected_total", code="503") == 1  # not the probe
            assert client.get("/v1/models").status == 200
            release.set()
            _until(lambda: client.worker.state is State.READY)
            assert client.get("/healthz").status == 200


def test_a_model_that_cannot_start_ends_the_server() -> None:
    def fail(engine: Engine) -> None:
        raise MemoryError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2_jax.serve.worker.warm_start", fail)
        with pytest.raises(MemoryError, match="no room"), serving():
            pass


def test_one_client_with_many_prompts_does_not_hold_up_another(client: Client) -> None:
    with _slow(client), _threads() as start:
        many = start(client.complete, ["a"] * 40, max_tokens=4)
        _until(lambda: len(client.worker._queue) > 30)
        # The address says who a client is: this one comes from another.
        with socket.create_connection(
            ("127.0.0.1", client.port), source_address=("127.0.0.2", 0)
        ) as other:
            body = b'{"model":"tiny","max_tokens":1}'
            other.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        assert len(client.worker._queue) > 10
        assert len(many.result()["choices"]) == 40


def test_prompts_of_every_length_use_programs_that_are_warm(client: Client) -> None:
    for length in range(1, CONTEXT + 1):
        client.complete([5] * length, max_tokens=0, echo=True, logprobs=1)
        if length < CONTEXT:
            client.complete([5] * length, max_tokens=1, logprobs=length % 3)
            client.complete([5] * length, max_tokens=1, temperature=0)
