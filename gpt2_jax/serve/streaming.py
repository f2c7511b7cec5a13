"""Answers a completion in server-sent events, and never waits long for a reader."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

from sse_starlette.sse import EventSourceResponse, SendTimeoutError

from gpt2_jax.errors import print_stderr
from gpt2_jax.serve.answer import Answer
from gpt2_jax.serve.errors import ApiError, to_json
from gpt2_jax.serve.logprobs import Piece

SEND_SECONDS = 30.0
"""How long a chunk may wait for its reader."""


class Events(EventSourceResponse):
    """Sends the chunks of an answer, then `[DONE]`; cancels its job however it ends."""

    def __init__(
        self,
        answer: Answer,
        pieces: AsyncIterator[tuple[int, Piece]],
        first: tuple[int, Piece],
        end: Callable[[], None],
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        """Prepares the response.

        Args:
          answer: makes the chunks.
          pieces: further pieces of it.
          first: the first, for which the caller has waited.
          end: is called when nothing more is sent.
          send_seconds: how long a chunk may wait for its reader.
        """
        self._end = end
        super().__init__(
            _events(answer, pieces, first), ping=0, sep="\n", send_timeout=send_seconds
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends all chunks, unless the client leaves or reads too slowly."""
        try:
            await super().__call__(scope, receive, send)
        except* SendTimeoutError:
            print_stderr("note: a client that reads too slowly was left")
        finally:
            self._end()


async def _events(
    answer: Answer, pieces: AsyncIterator[tuple[int, Piece]], first: tuple[int, Piece]
) -> AsyncIterator[dict[str, str]]:
    """Yields each chunk as an event; a failure is an event too, and the last."""
    try:
        if chunk := answer.chunk(*first):
            yield _event(chunk)
        async for index, piece in pieces:
            if chunk := answer.chunk(index, piece):
                yield _event(chunk)
        if chunk := answer.last_chunk():
            yield _event(chunk)
        yield {"data": "[DONE]"}
    except ApiError as error:
        yield _event(error.body())
    except Exception as error:
        print_stderr("".join(traceback.format_exception(error)))
        yield _event(ApiError(500, "the server failed", code="internal_error").body())


def _event(value: Any) -> dict[str, str]:
    return {"data": to_json(value).decode("ascii")}
