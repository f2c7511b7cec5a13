"""Tests that requests of strangers, and bodies that are too much, are refused early."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.serve.app import Policy
from gpt2_jax.serve.security import read_keys
from tests.serve.serving import Client, serving

_JSON = {"Content_Type": "application/json"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Client]:
    policy = Policy(hosts=["gpt2.example"], keys=["k1", "k2"], lenient=True, body_seconds=0.3)
    with serving(policy=policy) as client:
        yield client


def test_only_known_hosts_and_addresses_are_answered(guarded: Client) -> None:
    for host, status in {
        "gpt2.example": 200,
        "GPT2.example:8000": 200,
        "gpt2.example.": 200,
        "localhost:1": 200,
        "127.0.0.1": 200,
        "10.1.2.3:80": 200,
        "[::1]:80": 200,
        "evil.example": 403,
        "gpt2.example.evil.example": 403,
        "127.0.0.1.evil.example": 403,
        "user@localhost": 403,
        "": 403,
    }.items():
        reply = guarded.send("GET", "/healthz", Host=host)
        assert reply.status == status, host
        if status == 403:
            assert reply.error["code"] == "foreign_host"


def test_a_key_is_asked_for_everywhere_but_by_probes(guarded: Client) -> None:
    assert guarded.get("/healthz").status == 200
    for path in ("/metrics", "/v1/models", "/openapi.json", "/nowhere"):
        for headers in (
            {},
            {"Authorization": "Bearer k3"},
            {"Authorization": "Basic k1"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer \xe9"},
        ):
            reply = guarded.send("GET", path, **headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.error["code"] == "invalid_api_key"
    for key in ("k1", "k2"):
        assert guarded.send("GET", "/v1/models", Authorization=f"Bearer {key}").status == 200


def test_the_page_is_public_and_its_numbers_are_not(guarded: Client) -> None:
    for path in ("/", "/static/index.html"):
        assert guarded.get(path).status == 200
    assert guarded.get("/static/none.js").status == 404
    for path in ("/explore/v1/models", f"/explore/v1/run/{'0' * 32}/logits.npy", "//", "/static"):
        assert guarded.get(path).status == 401, path
    assert guarded.send("GET", "/", Host="evil.example").status == 403
    found = guarded.send("GET", "/explore/v1/models", Authorization="Bearer k1")
    assert [model["id"] for model in found.json] == ["tiny"]


def test_unknown_fields_are_ignored_where_the_server_is_lenient(guarded: Client) -> None:
    headers = {"Authorization": "bearer k1", **_JSON}
    for body in (
        b'{"model":"tiny","max_token":3,"max_tokens":1}',
        b'{"model":"tiny","max_tokens":1,"stream":true,"stream_options":{"usage":true}}',
    ):
        assert guarded.send("POST", "/v1/completions", body, **headers).status == 200


def test_only_bodies_declared_as_json_are_read(client: Client) -> None:
    body = b'{"model":"tiny","max_tokens":1}'
    for kind, message in {
        "text/plain": "must be declared as JSON",
        "application/x-www-form-urlencoded": "must be declared as JSON",
        "application/json; charset=latin-1": "but its charset is declared as latin-1",
    }.items():
        reply = client.send("POST", "/v1/completions", body, Content_Type=kind)
        assert reply.status == 415
        assert message in reply.error["message"]
    assert client.send("POST", "/v1/completions", body).status == 415
    assert client.send("POST", "/tokenize", b"{}", Content_Encoding="gzip", **_JSON).status == 415
    for kind in ("Application/JSON; charset=UTF-8", 'application/json;v=1;charset="utf-8"'):
        assert client.send("POST", "/v1/completions", body, Content_Type=kind).status == 200
    options = client.send("OPTIONS", "/v1/completions", Origin="https://a.example")
    assert options.status == 405
    assert not [name for name in options.headers if name.startswith("access-control")]


def test_large_bodies_are_refused_declared_or_not(client: Client) -> None:
    body = b'{"prompt":"' + b"x" * 2**20 + b'"}'
    reply = client.send("POST", "/v1/completions", body, **_JSON)
    assert (reply.status, reply.error["code"]) == (413, "body_too_large")
    assert reply.headers["x-should-retry"] == "false"
    with contextlib.closing(client.connect()) as connection:
        pieces = (b"x" * 2**16 for _ in range(17))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                "POST",
                "/tokenize",
                pieces,
                {"Content-Type": "application/json"},
                encode_chunked=True,
            )
        assert connection.getresponse().status == 413
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(
            b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999999999\r\n\r\n"
        )
        assert connection.recv(30).split()[1] in (b"400", b"413")


def test_a_body_that_does_not_come_is_not_waited_for(guarded: Client) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port)) as connection:
        connection.sendall(
            b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k1\r\n"
            b'Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"'
        )
        started = time.monotonic()
        assert connection.recv(30).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("answered", [0, 1])
def test_a_connection_whose_next_request_never_ends_is_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    monkeypatch.setattr("gpt2_jax.serve.server.HEADER_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as connection:
        for _ in range(answered):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        while connection.recv(4096):  # the rest of an answer
            pass


def test_a_client_that_reads_nothing_is_cut_off(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody takes would stay in memory for ever."""
    monkeypatch.setattr("gpt2_jax.serve.server.SEND_SECONDS", 0.2)
    monkeypatch.setattr("gpt2_jax.serve.metrics.Metrics.text", lambda self: b"x" * 2**24)
    with contextlib.closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", client.port))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections = client.server.server_state.connections
        _until(lambda: any(each._counted.num_unsent for each in [*connections]))
        _until(lambda: not connections)
    # One that reads slowly gets all of it.
    with contextlib.closing(client.connect()) as reading:
        reading.request("GET", "/metrics")
        response, received = reading.getresponse(), 0
        while piece := response.read(2**21):
            received += len(piece)
            time.sleep(0.1)
        assert received == 2**24


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_garbage_is_answered_and_forgotten(client: Client) -> None:
    for data in (
        b"\x00\xff" * 50,
        b"GET\r\n\r\n",
        b"GET /%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", client.port), timeout=5) as connection:
            connection.sendall(data)
            assert connection.recv(30).split()[1] in (b"400", b"404")


def test_a_file_of_keys_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nabc\n\n  # theirs\n  def \n")
    assert read_keys(str(path)) == ("abc", "def")
    for content, message in (("\n", "has no key"), ("a b\n", "without spaces"), ("é", "ASCII")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_keys(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_keys(str(tmp_path / "none"))
