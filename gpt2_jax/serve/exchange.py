"""Reads requests and answers them: what all paths have in common."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gpt2_jax.serve import fields
from gpt2_jax.serve.errors import ApiError, to_json
from gpt2_jax.serve.security import BODY_SECONDS, read_body
from gpt2_jax.serve.streaming import SEND_SECONDS

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Policy:
    """Says whom the server answers, and how strictly it reads.

    Attributes:
      hosts, keys: see `Guard`.
      lenient: whether unknown fields are ignored.
      body_seconds: how long a body may take to arrive.
      send_seconds: how long a chunk may wait for its reader.
    """

    hosts: Sequence[str] = ()
    keys: Sequence[str] = ()
    lenient: bool = False
    body_seconds: float = BODY_SECONDS
    send_seconds: float = SEND_SECONDS


async def read_values(
    request: Request, known: Sequence[fields.Field], policy: Policy
) -> dict[str, Any]:
    """Returns the checked fields of a request's body.

    Raises:
      ApiError: for a body or a field that is wrong.
    """
    body = await read_body(request.headers, request.receive, policy.body_seconds)
    return fields.parse(known, fields.parse_json(body), lenient=policy.lenient)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a response with a value as JSON; bytes are JSON already."""
    content = value if isinstance(value, bytes) else to_json(value)
    return Response(content, status, headers, media_type="application/json")


async def unless_left(request: Request, answer: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Waits for an answer, but no longer than the client does.

    Raises:
      ApiError: if the client leaves; nobody will read it.
    """
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(400, "the client has left", code="client_left")
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
