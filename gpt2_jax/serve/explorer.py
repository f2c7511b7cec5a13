"""Answers the explorer's page: runs, their arrays, saved steps, and the state of the engine.

The work is done in one thread, piece by piece, so that the event loop is never blocked, and
completions share the processor with one piece at most. What a client has asked for and not waited
for is not computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import math
import re
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gpt2_jax.errors import error_text, print_stderr, short_repr
from gpt2_jax.inference.prefill import CHUNKS
from gpt2_jax.interpret import views
from gpt2_jax.serve import explorer_fields
from gpt2_jax.serve.errors import ApiError, to_json, wrong
from gpt2_jax.serve.exchange import Policy, json_response, read_values, unless_left
from gpt2_jax.serve.explorer_warm import warm_pieces
from gpt2_jax.serve.insights import Insights
from gpt2_jax.serve.languages import LANGUAGES
from gpt2_jax.serve.manual import DOCS
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.pages import CONTENT_TYPES, WORTH_PACKING, Pages, is_known, takes_gzip
from gpt2_jax.serve.runs import RUN_ID
from gpt2_jax.serve.served import Served
from gpt2_jax.serve.worker import State, unavailable

T = TypeVar("T")

API = "/explore/v1"
LINES = "application/x-ndjson"
MOST_WAITING = 256
"""How many pieces of work can wait, of all clients together."""
MOST_WORDS = 256
"""How many tokens can be named at once."""
_TOKEN_ID = re.compile("[0-9]{1,9}")
_FOR_EVER = "private, max-age=31536000, immutable"
_LEVEL = 6


class Explorer:
    """Answers the explorer's requests."""

    def __init__(self, models: Models, policy: Policy) -> None:
        """Prepares the explorer; nothing is loaded or compiled before the first request.

        Args:
          models: of the server.
          policy: of the server.
        """
        self._models, self._policy = models, policy
        self.insights = Insights(models)
        self._pages, self._manual = Pages(), Pages(DOCS)
        self._thread = ThreadPoolExecutor(1, "explorer")
        self._waiting = 0
        self.busy = self._closed = False

    @property
    def routes(self) -> list[Route]:
        """Returns the paths and what answers them."""
        gets = {
            "/": self._page,
            "/static/{path:path}": self._file,
            "/docs/{document:path}": self._document,
            f"{API}/models": self._list_models,
            f"{API}/steps": self._steps,
            f"{API}/engine": self._engine,
            f"{API}/views": self._views,
            f"{API}/card": self._card,
            f"{API}/words": self._words,
            f"{API}/run/{{id}}/lesson.html": self._lesson,
            f"{API}/run/{{id}}/{{address:path}}.npy": self._array,
        }
        posts = {
            f"{API}/run": self._run,
            f"{API}/curves": self._curves,
            f"{API}/compare": self._compare,
            f"{API}/train_step": self._train_step,
        }
        return [
            *(Route(path, answer, methods=["GET"]) for path, answer in gets.items()),
            *(Route(path, answer, methods=["POST"]) for path, answer in posts.items()),
        ]

    def warm(self) -> None:
        """Begins to run the explorer's programs, so that a first text does not wait for them.

        Whatever a client asks for comes first, behind one program at most. Models of which the
        explorer would need a second copy are left out, so that to serve them costs no more.
        """
        pieces = warm_pieces(self._models.named.values(), self.insights)

        def run_next() -> None:
            piece = None if self._closed or self._models.draining else next(pieces, None)
            if piece is not None:
                try:
                    piece()
                except Exception as error:
                    print_stderr(f"note: the explorer could not be warmed: {error_text(error)}")
                    return
                with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                    self._thread.submit(run_next)

        self._thread.submit(run_next)

    def close(self) -> None:
        """Lets go of all work that waits; what runs ends by itself."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _page(self, request: Request) -> Response:
        return await asyncio.to_thread(self._pages.answer, request)

    async def _file(self, request: Request) -> Response:
        return await asyncio.to_thread(self._pages.answer, request, request.path_params["path"])

    async def _document(self, request: Request) -> Response:
        return await asyncio.to_thread(
            self._manual.answer, request, request.path_params["document"]
        )

    async def _list_models(self, request: Request) -> Response:
        return json_response(await self._work(request, self.insights.listed))

    async def _steps(self, request: Request) -> Response:
        name = _query(request, "model")
        return json_response(await self._work(request, self.insights.steps, name))

    async def _engine(self, request: Request) -> Response:
        return json_response(engine_state(self._models.find(_query(request, "model"))))

    async def _views(self, request: Request) -> Response:
        model = self._models.find(_query(request, "model"))
        return json_response(views.listed(views.views_of(model.config.model)))

    async def _run(self, request: Request) -> Response:
        values = await read_values(request, explorer_fields.RUN_FIELDS, self._policy)
        summary = await self._work(request, self.insights.run, values)
        return await _packed(request, _to_json(summary), "application/json")

    async def _array(self, request: Request) -> Response:
        id_, address = _run_id(request), request.path_params["address"]
        headers = {"cache-control": _FOR_EVER, "etag": f'W/"{id_}/{address}"'}
        if address.isascii() and is_known(request, headers["etag"]):
            return Response(status_code=304, headers=headers)
        array = await self._work(request, self.insights.array, id_, address)
        return await _packed(request, array, "application/octet-stream", headers)

    async def _card(self, request: Request) -> Response:
        name = _query(request, "model")
        return json_response(await self._work(request, self.insights.card, name))

    async def _words(self, request: Request) -> Response:
        name, ids = _query(request, "model"), _ids(_query(request, "ids") or "")
        return json_response(await self._work(request, self.insights.words, name, ids))

    async def _lesson(self, request: Request) -> Response:
        id_, language = _run_id(request), _query(request, "language") or LANGUAGES[0]
        if language not in LANGUAGES:
            raise wrong("language", f"language must be {' or '.join(LANGUAGES)}")
        state = {part: _index(request, part) for part in ("layer", "head", "query", "key")}
        content = await self._work(request, self.insights.lesson, id_, state, language)
        # It has code within it, which a page of this server may not: it is for a disk.
        headers = {"content-disposition": 'attachment; filename="lesson.html"'}
        return await _packed(request, content, CONTENT_TYPES[".html"], headers)

    async def _compare(self, request: Request) -> Response:
        values = await read_values(request, explorer_fields.COMPARE_FIELDS, self._policy)
        found = await self._work(request, self.insights.compare, values["a"], values["b"])
        return await _packed(request, _to_json(found), "application/json")

    async def _train_step(self, request: Request) -> Response:
        values = await read_values(request, explorer_fields.TRAIN_STEP_FIELDS, self._policy)
        found = await self._work(request, self.insights.train_step, values)
        return await _packed(request, _to_json(found), "application/json")

    async def _curves(self, request: Request) -> Response:
        values = await read_values(request, explorer_fields.CURVES_FIELDS, self._policy)
        points = await self._work(request, self.insights.curves, values)
        # The status is sent when there is a point: until then it can be an error.
        first = await self._work(request, _next, points)
        return StreamingResponse(self._lines(first, points), media_type=LINES)

    async def _lines(
        self, point: dict[str, Any] | None, points: Iterator[dict[str, Any]]
    ) -> AsyncIterator[bytes]:
        """Yields a line for each point; each is a piece of work, so that others have a turn."""
        try:
            while point is not None:
                yield _to_json(point) + b"\n"
                point = await self._in_thread(_next, points)
        except ApiError as error:
            yield to_json(error.body()) + b"\n"
        except Exception as error:
            print_stderr("".join(traceback.format_exception(error)))
            failed = ApiError(500, "the server failed", code="internal_error")
            yield to_json(failed.body()) + b"\n"

    async def _work(self, request: Request, function: Callable[..., T], *arguments: Any) -> T:
        """Returns what a function returns, in the thread; a client that leaves is not worked for.

        Raises:
          ApiError: 429 if too much waits already, 503 if the server is shutting down.
        """
        return await unless_left(request, self._in_thread(function, *arguments))

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._models.draining:
            raise unavailable(State.DRAINING)
        if self._waiting >= MOST_WAITING:
            raise ApiError(
                429,
                f"{self._waiting} requests wait for the explorer already: try again later",
                code="queue_full",
            )
        self._waiting += 1
        try:
            # If this is cancelled while it waits for the thread, the function is never called.
            piece = self._thread.submit(self._piece, function, *arguments)
            return await asyncio.wrap_future(piece)
        finally:
            self._waiting -= 1

    def _piece(self, function: Callable[..., T], *arguments: Any) -> T:
        self.busy = True
        try:
            return function(*arguments)
        finally:
            self.busy = False


def _next(points: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(points, None)


def _to_json(value: Any) -> bytes:
    """Returns JSON with null for numbers that are not finite, as a model that went bad has them."""
    try:
        return to_json(value)
    except ValueError:
        return to_json(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _query(request: Request, name: str) -> str | None:
    """Returns a parameter of the address; None if it is missing or empty."""
    return request.query_params.get(name) or None


def _index(request: Request, name: str) -> int | None:
    """Returns a parameter of the address that is a number from 0; None if it is missing."""
    value = _query(request, name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise wrong(name, f"{name} must be an integer from 0, not {short_repr(value)}")
    return int(value)


def _ids(listed: str) -> list[int]:
    digits = listed.split(",")
    if len(digits) > MOST_WORDS or not all(_TOKEN_ID.fullmatch(each) for each in digits):
        raise wrong("ids", f"ids must be at most {MOST_WORDS} token ids with commas between them")
    return [int(each) for each in digits]


def _run_id(request: Request) -> str:
    id_ = request.path_params["id"]
    if not RUN_ID.fullmatch(id_):
        raise ApiError(404, "the id of a run has 32 hexadecimal digits", param="run")
    return id_


async def _packed(
    request: Request, content: bytes, kind: str, headers: dict[str, str] | None = None
) -> Response:
    """Returns a response that is compressed if the client takes that and it is worth it."""
    sent = {"content-type": kind, "vary": "accept-encoding", **(headers or {})}
    if len(content) >= WORTH_PACKING and takes_gzip(request):
        content = await asyncio.to_thread(gzip.compress, content, _LEVEL, mtime=0)
        sent["content-encoding"] = "gzip"
    return Response(content, headers=sent)


def engine_state(model: Served) -> dict[str, Any]:
    """Returns what the slots, the queue and the cache of a model's engine held a moment ago."""
    worker, now = model.worker, model.worker.occupancy
    return {
        "model": model.name,
        "state": worker.state.value,
        "slots": [
            {
                "busy": use.busy,
                "prompt_tokens": use.prompt,
                "drawn": use.drawn,
                "length": use.length,
            }
            for use in now.slots
        ],
        "queued": worker.num_queued,
        "waiting": now.waiting,
        "prefilling": [{"done": prompt.done, "total": prompt.total} for prompt in now.reading],
        "chunk": CHUNKS[-1],
        "max_length": worker.max_length,
        "cache": {"used_bytes": now.used_bytes, "total_bytes": now.cache_bytes},
    }
