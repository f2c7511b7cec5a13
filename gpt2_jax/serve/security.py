"""Refuses requests before anything reads them: foreign hosts, no token, too much, too slow."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from email.message import Message
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.serve.errors import ApiError, to_json

MOST_BYTES = 2**20
"""The largest body."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
HEALTH = "/healthz"
"""The path that needs no token, for probes."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?")


def read_keys(path: str) -> tuple[str, ...]:
    """Returns the keys of a file, one a line; empty lines and those that begin with # have none.

    Raises:
      UserError: if it cannot be read, has no key, or a key with a space or beyond ASCII.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api_key_file {path} cannot be read: {error}") from error
    keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
    if not keys:
        raise UserError(f"--api_key_file {path} has no key: write one on a line of its own")
    for number, key in enumerate(keys, 1):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"--api_key_file {path}: key {number} must be ASCII without spaces")
    return tuple(keys)


class Guard:
    """Wraps an ASGI application, and lets through requests that name this server and have a key.

    A page that rebinds its own name to this address (DNS rebinding) still sends its own name as
    Host; an address is never such a name, so that all addresses are taken.
    """

    def __init__(
        self,
        app: Any,
        hosts: Collection[str],
        keys: Sequence[str],
        *,
        public: Callable[[str], bool],
        rejected: Callable[[int], None],
    ) -> None:
        """Wraps an application.

        Args:
          app: of ASGI.
          hosts: names that requests may be sent to, beside localhost and addresses; `*` for all.
          keys: of which a request must have one as its bearer token; none are asked for if empty.
          public: says whether a path needs no key, as that of `HEALTH` does not.
          rejected: is called with the status of each request that is refused.
        """
        self._app, self._public, self._rejected = app, public, rejected
        self._hosts = {host.lower().rstrip(".") for host in hosts} | {"localhost"}
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_host(scope)
            self._check_key(scope)
        except ApiError as error:
            self._rejected(error.status)
            body = to_json(error.body())
            headers = {"content-type": "application/json", **error.headers}
            headers["content-length"] = str(len(body))
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": error.status, "headers": raw})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _check_host(self, scope: Any) -> None:
        values = [value for name, value in scope["headers"] if name == b"host"]
        host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
        match = _HOST.fullmatch(host)
        name = match[1].rstrip(".") if match else ""
        if "*" in self._hosts or name in self._hosts or _is_address(name):
            return
        raise ApiError(
            403,
            "the Host header names another host than this server is known by: start it with "
            "--allowed_host NAME",
            code="foreign_host",
        )

    def _check_key(self, scope: Any) -> None:
        if not self._keys or scope["path"] == HEALTH or self._public(scope["path"]):
            return
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
        token = token.strip()
        # Every key is compared, so that the time says nothing about them.
        found = [hmac.compare_digest(token, key) for key in self._keys]
        if scheme.lower() == b"bearer" and any(found):
            scope["state"] = {**scope.get("state", {}), "key": str(found.index(True))}
            return
        raise ApiError(
            401,
            "the request needs a key of this server: send the header Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _check_declared(content_type: str) -> None:
    """Raises ApiError unless a body is declared as JSON, in UTF-8 if its charset is named."""
    declared = Message()
    declared["content-type"] = content_type.replace("\n", " ").replace("\r", " ")
    problem = None
    if not content_type or declared.get_content_type() != "application/json":
        problem = "must be declared as JSON"
    elif (charset := declared.get_content_charset("utf-8")) not in ("utf-8", "utf8"):
        problem = f"must be UTF-8, but its charset is declared as {charset[:30]}"
    if problem:
        raise ApiError(
            415,
            f"the body {problem}: send the header Content-Type: application/json",
            code="unsupported_media_type",
        )


async def read_body(headers: Any, receive: Any, seconds: float = BODY_SECONDS) -> bytes:
    """Returns the body of a request that is declared as JSON.

    Raises:
      ApiError: 415, 413 or 408, or 400 if the client left.
    """
    _check_declared(headers.get("content-type", ""))
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(415, "the body must not be compressed", code="unsupported_media_type")
    length = headers.get("content-length", "0")
    too_large = ApiError(413, f"the body exceeds {MOST_BYTES} bytes", code="body_too_large")
    if length.isdigit() and (len(length) > 10 or int(length) > MOST_BYTES):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(
                        400, "the client left before its body was complete", code="client_left"
                    )
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise ApiError(
            408,
            f"the body did not arrive within {seconds:g} seconds",
            code="body_timeout",
            headers={"Connection": "close"},
        ) from None
