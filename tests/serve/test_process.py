"""Tests the verb in a process of its own: what it prints, and how signals end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.serve.server import bound_socket
from tests.inference.tiny import make_run
from tests.serve.serving import pieces_tokenizer, served_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = pieces_tokenizer()
    config = served_config(tokenizer)
    return make_run(tmp_path_factory.mktemp("runs") / "small", config, tokenizer)


def _post(port: int, **fields: Any) -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as sent:
        body = json.dumps({"model": "small", **fields})
        sent.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = sent.getresponse()
        return response.status, json.loads(response.read())


@contextlib.contextmanager
def _server(run: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    words = [sys.executable, "-m", "gpt2_jax", "serve", "--model", str(run), "--port", "0"]
    process = subprocess.Popen([*words, *flags], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.fullmatch(r"serving small on http://127\.0\.0\.1:(\d+)\n", line)
        assert match, line + process.stderr.read()
        assert process.stderr.readline() == f"ready: open http://127.0.0.1:{match[1]}/\n"
        yield process, int(match[1])
    finally:
        process.kill()
        process.communicate()


# As long as a test likes: it slides for ever.
_ENDLESS = {"max_tokens": 10**6, "context_overflow": "slide", "ignore_eos": True}


@pytest.mark.slow
def test_sigterm_lets_texts_end_and_refuses_what_waits(run: Path) -> None:
    with _server(run, "--slots", "2") as (process, port), ThreadPoolExecutor(8) as pool:
        long = {"max_tokens": 2000, "context_overflow": "slide", "ignore_eos": True}
        running = [pool.submit(_post, port, **long) for _ in range(2)]
        time.sleep(0.2)
        queued = [pool.submit(_post, port, max_tokens=1) for _ in range(3)]
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        for future in queued:
            assert future.result()[0] == 503
        for future in running:
            status, answer = future.result()
            assert (status, answer["usage"]["completion_tokens"]) == (200, 2000)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_the_grace_period_ends_and_a_second_signal_ends_at_once(run: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        with _server(run, "--grace", "1") as (process, port):
            future = pool.submit(_post, port, **_ENDLESS)
            time.sleep(0.3)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert future.result()[0] == 503
            assert process.wait(20) == 0
            assert 0.9 < time.monotonic() - started < 10
        with _server(run, "--grace", "600") as (process, port):
            future = pool.submit(_post, port, **_ENDLESS)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.8)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 128 + signal.SIGTERM
            assert isinstance(future.exception(), (OSError, http.client.HTTPException))


@pytest.mark.slow
def test_an_idle_server_ends_by_ctrl_c(run: Path) -> None:
    with _server(run) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_found_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "--model", "/nowhere", "--port", port]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}: Address already" in error
    assert "choose another --port" in error
    assert main(["serve", "--model", "/nowhere", "--host", "no.such.host.example"]) == 2
    error = capsys.readouterr().err
    assert "cannot listen on no.such.host.example" in error
    assert "--host must name this machine" in error


def test_a_port_is_taken_while_the_models_of_another_server_are_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bound_socket("127.0.0.1", 0) as other:  # which does not listen yet
        port = str(other.getsockname()[1])
        assert main(["serve", "--model", "/nowhere", "--port", port]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot listen on 127.0.0.1 port {port}: Address already")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "host, warned",
    [
        ("0.0.0.0", True),
        ("::", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("localhost", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_an_address_that_others_reach_is_warned_of_unless_keys_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, warned: bool
) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        host = "0.0.0.0" if warned else "127.0.0.1"
    words = ["serve", "--model", "/nowhere", "--port", "0", "--host", host]
    assert main(words) == 2
    *lines, error = capsys.readouterr().err.splitlines()
    assert "no model at /nowhere" in error
    warning = f"warning: --host {host} is open to other machines: without --api_key_file"
    assert [line.startswith(warning) for line in lines] == [True] * warned
    (tmp_path / "keys").write_text("k1\n")
    assert main([*words, "--api_key_file", str(tmp_path / "keys")]) == 2
    assert capsys.readouterr().err.splitlines() == [error]


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--port", "70000"), "--port must be between 0 and 65535"),
        (("--slots", "0"), "--slots must be between 1 and 256"),
        (("--grace", "nan"), "--grace must be between"),
        (("--max_length", "1"), "--max_length must be at least 2"),
        (("--max_length", "33"), "give 32 at most, and let requests go on beyond"),
        (("--host", ""), "must not be empty"),
        (("--model", "RUN"), "two models are named small"),
        (("--model", "other=/nowhere"), "no model at /nowhere"),
        (("--api_key_file", "/nowhere"), "cannot be read"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    run: Path, flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run) if word == "RUN" else word for word in flags]
    assert main(["serve", "--model", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
