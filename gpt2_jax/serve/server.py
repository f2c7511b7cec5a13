"""Runs the server in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2_jax.errors import UserError, print_stderr
from gpt2_jax.parallel.stop import SAME_REQUEST_SECONDS
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.streaming import SEND_SECONDS
from gpt2_jax.serve.worker import State

HEADER_SECONDS = 10.0
"""How long a new connection may take to send its first request's headers."""
GRACE_SECONDS = 30.0
"""How long texts that run may go on after SIGTERM, by default."""
_CLOSING_SECONDS = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ADVICE = {
    errno.EADDRINUSE: "choose another --port, or 0 for any that is free",
    errno.EACCES: "choose a --port from 1024 on",
}


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is to listen; nothing can connect to it before it does.

    No other process gets the address meanwhile, which may be minutes in which models are read.

    Args:
      host: a name or an address of this machine.
      port: 0 is any that is free.

    Raises:
      UserError: if there is no such address here, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        try:
            return _bound(socket.socket(family, kind, protocol), address, reuse=False)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # Connections of a server that has just ended keep the address, and may share it;
            # another server may not.
            bound = _bound(socket.socket(family, kind, protocol), address, reuse=True)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
            return bound
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error


def _bound(new: socket.socket, address: Any, *, reuse: bool) -> socket.socket:
    """Binds a socket; Linux lets several have one address if all of them reuse it."""
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        new.bind(address)
    except OSError:
        new.close()
        raise
    return new


def _cannot_listen(host: str, port: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    number: Any = getattr(error, "errno", None)
    advice = _ADVICE.get(number, "--host must name this machine")
    return UserError(f"cannot listen on {host} port {port}: {reason}; {advice}")


def is_loopback(bound: socket.socket) -> bool:
    """Returns whether only this machine reaches the address of a socket."""
    address = ipaddress.ip_address(bound.getsockname()[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class _Counting:
    """Wraps the transport of a connection and counts what was written to it."""

    def __init__(self, transport: Any) -> None:
        self._transport, self._written = transport, 0

    def write(self, data: bytes) -> None:
        """Sends data, or keeps what the connection does not take yet."""
        self._written += len(data)
        self._transport.write(data)

    @property
    def num_unsent(self) -> int:
        """Returns how many bytes are kept, because the client does not read."""
        return self._transport.get_write_buffer_size()

    @property
    def num_sent(self) -> int:
        """Returns how many bytes the connection has taken."""
        return self._written - self.num_unsent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(H11Protocol):
    """Ends connections that would stay open for ever.

    Those are closed that send no whole request, and those cut off whose client does not read: a
    close would wait for it to read the rest.
    """

    _answered: Any = None
    """The last request that was answered."""

    def connection_made(self, transport: Any) -> None:
        """Starts the clocks."""
        self._counted = _Counting(transport)
        super().connection_made(self._counted)  # pyright: ignore[reportArgumentType]
        self._silence = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)
        self._reading = self.loop.call_later(SEND_SECONDS, self._abort_if_unread, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        self._silence.cancel()
        self._reading.cancel()
        super().connection_lost(exc)

    def _abort_if_unread(self, num_sent: int) -> None:
        """Cuts the connection off if it has taken nothing since it had taken so many bytes."""
        if self._counted.num_unsent and self._counted.num_sent == num_sent:
            print_stderr("note: a client that does not read its answer was left")
            self._counted.abort()
            return
        self._reading = self.loop.call_later(
            SEND_SECONDS, self._abort_if_unread, self._counted.num_sent
        )

    def on_response_complete(self) -> None:
        """Starts the clock again, for the next request."""
        self._answered = self.cycle
        self._silence.cancel()
        self._silence = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)
        super().on_response_complete()

    def _close_if_silent(self) -> None:
        if self.cycle is self._answered and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Serves an application, and ends when its models have nothing left to do.

    The first SIGTERM or SIGINT has the models drained: what runs goes on for a grace period, and
    everything else is answered with 503. A second one ends the process at once.
    """

    def __init__(
        self,
        app: Any,
        models: Models,
        *,
        grace: float = GRACE_SECONDS,
        on_start: Callable[[str], None] = lambda url: None,
        on_ready: Callable[[str], None] = lambda url: print_stderr("ready"),
    ) -> None:
        """Prepares the server.

        Args:
          app: of `make_app`.
          models: of the application.
          grace: how many seconds texts that run may go on.
          on_start: is called with the address when the server listens.
          on_ready: is called with it when every model can answer.
        """
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
            h11_max_incomplete_event_size=2**16,
        )
        super().__init__(config)
        self._models, self._grace = models, grace
        self._on_start, self._on_ready = on_start, on_ready
        self._url = ""
        self._asked = 0.0
        self._draining: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    async def startup(self, sockets: Any = None) -> None:
        """Listens, and starts the models.

        Raises:
          UserError: if another process listens at the address of a socket.
        """
        for each in sockets or ():
            # Its connections inherit this: the next server can bind at once when this one ends.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            try:
                each.listen()
            except OSError as error:
                host, port = each.getsockname()[:2]
                raise _cannot_listen(host, port, error) from error
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._on_start(self._url)
        self._models.start()
        self._watching = asyncio.create_task(self._watch_start())

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals in the block."""
        loop = asyncio.get_running_loop()
        previous = {}
        with contextlib.suppress(ValueError, RuntimeError):  # signals go to the main thread only
            for number in _SIGNALS:
                previous[number] = signal.getsignal(number)
                loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number, handler in previous.items():
                with contextlib.suppress(ValueError, RuntimeError):
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)

    def _on_signal(self, number: int) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if not self._asked:
            self._asked = now
            print_stderr(
                f"{name}: finishing the texts that run, for {self._grace:g} seconds at most; "
                "again to stop at once"
            )
            self.drain()
        elif now - self._asked >= SAME_REQUEST_SECONDS:
            print_stderr(f"{name}: stopped at once")
            os._exit(128 + number)

    def drain(self) -> None:
        """Begins to end, as the first signal does."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        end = time.monotonic() + self._grace
        workers = [model.worker for model in self._models.all]
        warming = [worker for worker in workers if worker.state is State.WARMING]
        self._models.drain()
        while time.monotonic() < end and not all(worker.idle for worker in workers):
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.stop()
        waited = time.monotonic() + _CLOSING_SECONDS
        while time.monotonic() < waited and any(
            worker.alive for worker in workers if worker not in warming
        ):
            await asyncio.sleep(0.01)
        self.should_exit = True

    async def _watch_start(self) -> None:
        """Ends the server if a model cannot start."""
        while any(model.worker.state is State.WARMING for model in self._models.all):
            await asyncio.sleep(0.05)
        for model in self._models.all:
            if model.worker.startup_error:
                self.failure = model.worker.startup_error
                self.should_exit = True
                return
        if not self._asked:
            self._on_ready(self._url)
