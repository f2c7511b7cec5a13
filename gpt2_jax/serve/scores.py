"""Plans and answers `/v1/score`: log-probabilities of a text, or of continuations of a context."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Mapping
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.inference.requests import Logprobs, Request
from gpt2_jax.inference.scoring import encode_pair
from gpt2_jax.serve import kinds as k
from gpt2_jax.serve.completions import prompt_ids
from gpt2_jax.serve.errors import ApiError, to_json, too_long, wrong
from gpt2_jax.serve.fields import Field
from gpt2_jax.serve.job import Job
from gpt2_jax.serve.logprobs import clamped
from gpt2_jax.serve.served import Served

FIELDS = (
    Field("model", "One of /v1/models.", **k.string(), required=True),
    Field("prompt", "The text to score, or its ids.", **k.text_or_ids()),
    Field("context", "What comes before the continuations.", **k.text_or_ids()),
    Field(
        "continuations",
        "The texts to score behind the context: texts if it is one, ids if it is ids.",
        **k.texts_or_ids(alone=False),
    ),
)
"""The fields of a request."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Holds the texts of a request that was found valid.

    Attributes:
      requests: one for each text, context included.
      starts: where the scored part of each begins.
    """

    requests: list[Request]
    starts: list[int]


def plan(model: Served, values: Mapping[str, Any]) -> Scoring:
    """Returns what a request asks of a model.

    Raises:
      ApiError: 400 with the field that is wrong.
    """
    prompt, context, continuations = (
        values[name] for name in ("prompt", "context", "continuations")
    )
    if prompt is not None:
        if context is not None or continuations is not None:
            raise wrong("prompt", "prompt excludes context and continuations: send one of both")
        pairs = [([], prompt_ids(model, "prompt", prompt))]
    elif context is None or continuations is None:
        name = "context" if continuations is not None else "continuations"
        missing = "prompt" if context is None and continuations is None else name
        raise ApiError(
            400, "send prompt, or context and continuations", param=missing, code="missing_field"
        )
    else:
        pairs = [
            _pair(model, context, f"continuations[{number}]", continuation)
            for number, continuation in enumerate(continuations)
        ]
    requests = []
    for number, (first, second) in enumerate(pairs):
        tokens = [*first, *second]
        if len(tokens) > model.worker.max_length:
            name = "prompt" if prompt is not None else f"continuations[{number}]"
            behind = f" behind {len(first)} of context" if first else ""
            raise too_long(
                name,
                f"{name} of {len(second)} tokens{behind} exceeds the {model.worker.max_length} "
                "tokens of this model: shorten it",
            )
        # One alternative says whether a token is the most probable one.
        requests.append(Request(tokens, 0, prompt_logprobs=True, num_alternatives=1))
    return Scoring(requests, [len(first) for first, _ in pairs])


def _pair(
    model: Served, context: str | list[int], name: str, continuation: str | list[int]
) -> tuple[list[int], list[int]]:
    if isinstance(context, str) != isinstance(continuation, str):
        raise wrong(name, f"{name} must be ids if context is ids, and a text if context is a text")
    if isinstance(context, str) and isinstance(continuation, str):
        # Checks each by itself, and that they are not too long to encode.
        prompt_ids(model, "context", context)
        prompt_ids(model, name, continuation)
        try:
            first, second = encode_pair(model.tokenizer, context, continuation)
        except UserError as error:
            raise wrong(name, str(error)) from None
        if not second:
            reason = "adds no token to context: both are encoded as one text"
            raise wrong(name, f"{name} {reason if continuation else 'must not be empty'}")
        return [*first], [*second]
    return prompt_ids(model, "context", context), prompt_ids(model, name, continuation)


async def answer(model: Served, scoring: Scoring, job: Job) -> bytes:
    """Returns the JSON with the score of each text, when all are finished."""
    found: dict[int, list[Logprobs | None]] = {}
    while updates := await job.next():
        found |= {update.index: update.prompt_logprobs for update in updates}
    return await asyncio.to_thread(lambda: to_json(_scores(model, scoring, found)))


def _scores(
    model: Served, scoring: Scoring, found: Mapping[int, list[Logprobs | None]]
) -> dict[str, Any]:
    texts = zip(scoring.requests, scoring.starts, strict=True)
    scores = [
        _score(model, index, [*request.prompt[start:]], found[index][start:])
        for index, (request, start) in enumerate(texts)
    ]
    read = sum(len(request.prompt) for request in scoring.requests)
    return {
        "id": f"score-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": model.fingerprint,
        "scores": scores,
        "usage": {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read},
    }


def _score(
    model: Served, index: int, tokens: list[int], found: list[Logprobs | None]
) -> dict[str, Any]:
    values = [entry and clamped(entry[0]) for entry in found]
    greedy = [
        entry[1][0][0] == token or entry[1][0][1] == entry[0]
        for token, entry in zip(tokens, found, strict=True)
        if entry
    ]
    return {
        "index": index,
        "logprob": sum(value for value in values if value is not None),
        "is_greedy": all(greedy),
        "tokens": [model.names.name(token) for token in tokens],
        "token_ids": tokens,
        "token_logprobs": values,
    }
