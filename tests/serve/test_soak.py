"""Tests a server under many requests of all kinds, of clients that behave and of those that do not.

The long ones are `slow`; together they take about two minutes.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.inference.generate import decode_params, generate_text
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder
from gpt2_jax.serve import completions
from tests.serve.serving import SLOTS, Client, chunks, joined, tiny_model

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["tiny", "error", "slide", 0, 1, 2, -1, 300, 2**63, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
_BODIES = st.dictionaries(
    st.sampled_from([field.name for field in completions.FIELDS]), _JSON, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(body=_BODIES)
def test_no_body_makes_the_server_fail(server: Client, body: dict[str, Any]) -> None:
    reply = server.post("/v1/completions", **{"model": "tiny"} | body)
    assert reply.status in (200, 400, 404), (body, reply)
    assert b"Traceback" not in reply.body
    if reply.status == 400:
        assert reply.error["message"], body


@pytest.mark.parametrize("seed, options", [(3, {}), (4, {"temperature": 0.7, "top_k": 9})])
def test_sample_with_as_many_slots_repeats_an_answer(
    client: Client, seed: int, options: dict[str, Any]
) -> None:
    answer = client.complete("hello", max_tokens=20, seed=seed, **options)["choices"][0]
    greedy = client.complete("hello", max_tokens=20, temperature=0)["choices"][0]
    model = tiny_model()
    decoder = build_decoder(model.config.model, model.config.compute)
    params = decode_params(decoder, model.params)
    for expected, chosen in (
        (answer, SamplingOptions(**options)),
        (greedy, SamplingOptions(temperature=0)),
    ):
        (sample,) = generate_text(
            decoder,
            params,
            model.tokenizer,
            ["hello"],
            max_new_tokens=20,
            options=chosen,
            seed=seed,
            num_slots=SLOTS,
        )
        assert sample.text == expected["text"]


def _random_request(rng: np.random.Generator, seed: int) -> dict[str, Any]:
    options: dict[str, Callable[[], Any]] = {
        "temperature": lambda: float(rng.choice([0, 0.5, 1.3])),
        "top_k": lambda: int(rng.integers(1, 40)),
        "top_p": lambda: float(rng.uniform(0.1, 1)),
        "min_p": lambda: float(rng.uniform(0, 0.2)),
        "presence_penalty": lambda: float(rng.uniform(-2, 2)),
        "frequency_penalty": lambda: float(rng.uniform(-2, 2)),
        "repetition_penalty": lambda: float(rng.uniform(0.5, 2)),
        "no_repeat_ngram_size": lambda: int(rng.integers(1, 4)),
        "logit_bias": lambda: {str(rng.integers(0, 256)): float(rng.uniform(-9, 9))},
        "logprobs": lambda: int(rng.integers(0, 21)),
        "echo": lambda: True,
        "stop": lambda: [chr(c) for c in rng.integers(97, 123, 3)],
        "n": lambda: int(rng.integers(1, 4)),
        "context_overflow": lambda: "slide",
    }
    names = rng.choice([*options], size=int(rng.integers(0, 6)), replace=False).tolist()
    prompt = rng.integers(0, 256, int(rng.integers(1, 16))).tolist()
    fixed = {"prompt": prompt, "max_tokens": int(rng.integers(1, 16)), "seed": seed}
    return fixed | {name: options[name]() for name in names}


@pytest.mark.slow
def test_two_hundred_requests_are_the_same_in_twenty_orders(client: Client) -> None:
    rng = np.random.default_rng(1)
    requests = [_random_request(rng, seed) for seed in range(200)]
    alone = [client.complete(**fields)["choices"] for fields in requests]
    with ThreadPoolExecutor(32) as pool:
        for order in range(20):
            numbers = rng.permutation(len(requests)).tolist()
            delays = rng.exponential(0.002, len(requests))

            def ask(number: int, delay: float, stream: bool = order % 2 == 1) -> Any:
                time.sleep(delay)
                if not stream:
                    return client.complete(**requests[number])["choices"]
                found = joined(client.stream(**requests[number]))
                return [found[index] for index in range(len(found))]

            for number, found in zip(numbers, pool.map(ask, numbers, delays), strict=True):
                assert found == alone[number], requests[number]


@pytest.mark.slow
def test_a_minute_of_everything_leaves_the_server_as_it_was(client: Client) -> None:
    end = time.monotonic() + 60
    fixed = {"prompt": "fixed", "max_tokens": 20, "seed": 1, "logprobs": 2}
    expected = client.complete(**fixed)["choices"]
    served: list[int] = []

    def act(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while time.monotonic() < end:
            action = int(rng.integers(0, 6))
            if action == 0:
                assert client.complete(**fixed)["choices"] == expected
            elif action == 1:
                found = joined(client.stream(**fixed))
                assert [found[0]] == expected
            elif action == 2:
                client.complete(**_random_request(rng, seed))
            elif action == 3:
                assert client.post("/v1/completions", model="tiny", n=0).status == 400
            else:
                _leave(client, rng, stream=action == 4)
            served.append(action)

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(act, seed) for seed in range(16)]
        time.sleep(20)
        before, count = _memory(), len(served)
        for future in futures:
            future.result()
    client.wait_until_idle()
    assert client.complete(**fixed)["choices"] == expected
    grown = _memory() - before
    assert len(served) > 500
    assert grown < 40e6, f"{grown / 1e6:.0f} MB in {len(served) - count} requests"


def _leave(client: Client, rng: np.random.Generator, stream: bool) -> None:
    fields = {"model": "tiny", "prompt": "left", "max_tokens": 400, "stream": stream}
    body = json.dumps(fields | {"context_overflow": "slide", "ignore_eos": True}).encode()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: application/json\r\n\r\n%s" % (len(body), body[: rng.integers(1, 999)])
        )
        time.sleep(float(rng.exponential(0.02)))


def _memory() -> int:
    """Returns the bytes of this process that are in memory now."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_thirty_two_streams_at_once_all_come_to_their_end(client: Client) -> None:
    def ask(number: int) -> Any:
        reply = client.post(
            "/v1/completions", model="tiny", prompt="go", max_tokens=25, stream=True, seed=number
        )
        return joined(chunks(reply.body))[0]

    with ThreadPoolExecutor(32) as pool:
        found = [*pool.map(ask, range(32))]
    for number in (0, 17, 31):
        assert [found[number]] == client.complete("go", max_tokens=25, seed=number)["choices"]
