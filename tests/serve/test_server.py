"""Tests which server gets an address: the first, and the next as soon as that has ended."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.serve.server import Server, bound_socket
from tests.serve.serving import serving

_HOST = "127.0.0.1"


def test_the_port_of_a_server_that_has_ended_is_free_at_once() -> None:
    with serving() as client:
        assert client.get("/healthz").status == 200
        # The system remembers connections on the side that closes them first.
        idle = socket.create_connection((_HOST, client.port))
    assert idle.recv(1) == b""
    idle.close()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((_HOST, client.port))
    bound = bound_socket(_HOST, client.port)
    with pytest.raises(UserError, match="in use"):  # it is kept from others at once, too
        bound_socket(_HOST, client.port)
    bound.close()


def test_a_server_that_finds_another_listening_says_so_in_one_line() -> None:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((_HOST, first.getsockname()[1] if each is second else 0))
        first.listen()
        unused: Any = None
        with pytest.raises(UserError, match=f"^cannot listen on {_HOST} port .*--port"):
            asyncio.run(Server(unused, unused).startup([second]))
