"""Puts the server together: its paths, what each answers, and how errors are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2_jax.errors import did_you_mean
from gpt2_jax.serve import completions, description, fields, scores, tokenization
from gpt2_jax.serve.answer import Answer
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.exchange import Policy, json_response, read_values, unless_left
from gpt2_jax.serve.explorer import Explorer
from gpt2_jax.serve.fields import shown
from gpt2_jax.serve.job import Job
from gpt2_jax.serve.metrics import CONTENT_TYPE, Metrics
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.pages import is_public
from gpt2_jax.serve.security import HEALTH, Guard
from gpt2_jax.serve.served import Served
from gpt2_jax.serve.streaming import Events
from gpt2_jax.serve.worker import State, unavailable

_POLICY = Policy()


def make_app(
    models: Models,
    metrics: Metrics,
    policy: Policy = _POLICY,
    explorer: Explorer | None = None,
) -> Any:
    """Returns the ASGI application.

    Args:
      models: that it offers.
      metrics: that it counts in, and shows.
      policy: see there.
      explorer: of the same models and policy; without one there is no page.
    """
    api = _Api(models, metrics, policy, explorer)
    routes = [
        Route("/v1/completions", api.complete, methods=["POST"]),
        Route("/v1/score", api.score, methods=["POST"]),
        Route("/v1/models", api.list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", api.show_model, methods=["GET"]),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/detokenize", api.detokenize, methods=["POST"]),
        Route("/tokenizer_info", api.tokenizer_info, methods=["GET"]),
        Route(HEALTH, api.health, methods=["GET"]),
        Route("/metrics", api.show_metrics, methods=["GET"]),
        Route("/openapi.json", api.describe, methods=["GET"]),
        *(explorer.routes if explorer else ()),
    ]
    handlers = {ApiError: api.refuse, HTTPException: api.refuse_path, Exception: api.fail}
    app = Starlette(routes=routes, exception_handlers=handlers)  # pyright: ignore
    app.router.redirect_slashes = False
    public = is_public if explorer else lambda path: False
    return Guard(app, policy.hosts, policy.keys, public=public, rejected=metrics.reject)


class _Api:
    """Answers requests."""

    def __init__(
        self, models: Models, metrics: Metrics, policy: Policy, explorer: Explorer | None
    ) -> None:
        self._models, self._metrics, self._policy = models, metrics, policy
        self._description = description.openapi(explorer=explorer is not None)

    async def complete(self, request: Request) -> Response:
        values = await self._values(request, completions.FIELDS)
        async with self._models.using(values["model"]) as model:
            plan = await asyncio.to_thread(completions.plan, model, values)
            job = Job(plan.requests, _client(request))
            model.worker.submit(job)
        answer = Answer(model, plan)
        with contextlib.ExitStack() as ending:
            ending.callback(model.worker.cancel, job)
            if not plan.stream:
                return json_response(await unless_left(request, answer.whole(job)))
            pieces = answer.pieces(job)
            # The status is sent when there is something to read: until then it can be an error.
            first = await unless_left(request, anext(pieces))
            end = ending.pop_all().close
            return Events(answer, pieces, first, end, self._policy.send_seconds)

    async def score(self, request: Request) -> Response:
        values = await self._values(request, scores.FIELDS)
        async with self._models.using(values["model"]) as model:
            scoring = await asyncio.to_thread(scores.plan, model, values)
            job = Job(scoring.requests, _client(request))
            model.worker.submit(job)
        try:
            return json_response(await unless_left(request, scores.answer(model, scoring, job)))
        finally:
            model.worker.cancel(job)

    async def list_models(self, request: Request) -> Response:
        entries = await asyncio.to_thread(self._models.listed)
        return json_response({"object": "list", "data": entries})

    async def show_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return json_response(await asyncio.to_thread(self._models.entry, name))

    async def tokenize(self, request: Request) -> Response:
        return await self._about_tokens(
            request, tokenization.TOKENIZE_FIELDS, tokenization.tokenize
        )

    async def detokenize(self, request: Request) -> Response:
        return await self._about_tokens(
            request, tokenization.DETOKENIZE_FIELDS, tokenization.detokenize
        )

    async def tokenizer_info(self, request: Request) -> Response:
        async with self._models.using(request.query_params.get("model")) as model:
            return json_response(tokenization.tokenizer_info(model))

    async def health(self, request: Request) -> Response:
        for model in self._models.named.values():
            if model.worker.state is not State.READY:
                # A probe has its answer: it is not a request that was refused.
                error = unavailable(model.worker.state)
                return json_response(error.body(), error.status, error.headers)
        return json_response({"status": "ready"})

    async def show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def describe(self, request: Request) -> Response:
        return json_response(self._description)

    async def _about_tokens(
        self,
        request: Request,
        known: Sequence[fields.Field],
        answer: Callable[[Served, dict[str, Any]], dict[str, Any]],
    ) -> Response:
        values = await self._values(request, known)
        async with self._models.using(values["model"]) as model:
            return json_response(await asyncio.to_thread(answer, model, values))

    async def _values(self, request: Request, known: Sequence[fields.Field]) -> dict[str, Any]:
        return await read_values(request, known, self._policy)

    async def refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        self._metrics.reject(error.status)
        return json_response(error.body(), error.status, error.headers)

    async def refuse_path(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        reasons = {
            404: f"there is no path {shown(path)}{_hint(path, self._description['paths'])}",
            405: f"this path has no {request.method}",
        }
        message = reasons.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        return await self.refuse(request, ApiError(error.status_code, message, headers=headers))

    async def fail(self, request: Request, error: Exception) -> Response:
        # Starlette raises the error again, so that its traceback is in the server's log.
        message = "the server failed: its log has the reason"
        return await self.refuse(request, ApiError(500, message, code="internal_error"))


def _hint(path: str, known: Collection[str]) -> str:
    """Returns which path was probably meant: clients differ in what they put in front of it."""
    path = path.rstrip("/")
    bare = path.removeprefix("/v1")
    if bare == "/chat/completions":
        return ": there is no chat; send a prompt to /v1/completions"
    meant = next((each for each in (f"/v1{bare}", bare) if each in known and each != path), None)
    if path in known:
        meant = path
    return did_you_mean(path, known) if meant is None else f"; did you mean {meant!r}?"


def _client(request: Request) -> str:
    """Returns who takes turns with others: a key, or an address."""
    key = getattr(request.state, "key", None)
    address = request.client.host if request.client else ""
    return address if key is None else f"key {key}"
