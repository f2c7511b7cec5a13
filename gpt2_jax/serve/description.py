"""Describes the API as OpenAPI does, from the tables by which requests are checked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from gpt2_jax import __version__
from gpt2_jax.serve import completions, scores, tokenization
from gpt2_jax.serve.errors import STATUSES
from gpt2_jax.serve.fields import object_schema

_INTEGER: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}
_STRING: dict[str, Any] = {"type": "string"}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_COMMON = (400, 401, 403)
_BODY = (*_COMMON, 404, 408, 413, 415)
_ENGINE = (*_BODY, 429, 500, 503, 504)


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(optional: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_USAGE = _object(prompt_tokens=_INTEGER, completion_tokens=_INTEGER, total_tokens=_INTEGER)
_LOGPROBS = _object(
    tokens=_list(_STRING),
    token_logprobs=_list(_or_null(_NUMBER)),
    top_logprobs=_list(_or_null({"type": "object", "additionalProperties": _NUMBER})),
    text_offset=_list(_INTEGER),
)
_CHOICE = _object(
    ("token_ids", "prompt_token_ids"),
    index=_INTEGER,
    text=_STRING,
    logprobs=_or_null(_LOGPROBS),
    finish_reason=_or_null({"type": "string", "enum": ["stop", "length"]}),
    token_ids=_list(_INTEGER),
    prompt_token_ids=_or_null(_list(_INTEGER)),
)
_HEAD = {
    "id": _STRING,
    "object": _STRING,
    "created": _INTEGER,
    "model": _STRING,
    "system_fingerprint": _STRING,
}
_SCORE = _object(
    index=_INTEGER,
    logprob=_NUMBER,
    is_greedy=_BOOLEAN,
    tokens=_list(_STRING),
    token_ids=_list(_INTEGER),
    token_logprobs=_list(_or_null(_NUMBER)),
)
_MODEL = _object(
    id=_STRING, object=_STRING, created=_INTEGER, owned_by=_STRING, max_model_len=_INTEGER
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "CompletionRequest": object_schema(completions.FIELDS),
    "Completion": _object(
        ("usage",),
        **_HEAD,
        seed=_INTEGER,
        choices=_list(_CHOICE),
        usage=_or_null(_USAGE),
    ),
    "ScoreRequest": object_schema(scores.FIELDS),
    "Scores": _object((), **_HEAD, scores=_list(_SCORE), usage=_USAGE),
    "TokenizeRequest": object_schema(tokenization.TOKENIZE_FIELDS),
    "Tokens": _object(tokens=_list(_INTEGER), count=_INTEGER, max_model_len=_INTEGER),
    "DetokenizeRequest": object_schema(tokenization.DETOKENIZE_FIELDS),
    "Text": _object(prompt=_STRING),
    "TokenizerInfo": _object(
        tokenizer_class=_STRING,
        vocab_size=_INTEGER,
        model_max_length=_INTEGER,
        eos_token=_or_null(_STRING),
        bos_token=_STRING,
        pad_token={"type": "null"},
        chat_template={"type": "null"},
    ),
    "Model": _MODEL,
    "Models": _object(object=_STRING, data=_list({"$ref": "#/components/schemas/Model"})),
    "Health": _object(status=_STRING),
    "Error": _object(
        error=_object(
            message=_STRING, type=_STRING, param=_or_null(_STRING), code=_or_null(_STRING)
        )
    ),
}
"""The schemas of what is sent and answered."""


@functools.cache
def openapi() -> dict[str, Any]:
    """Returns the description that is served at /openapi.json."""
    name = {"name": "name", "in": "path", "required": True, "schema": _STRING}
    asked = {"name": "model", "in": "query", "required": False, "schema": _STRING}
    paths = {
        "/v1/completions": _post("Complete texts.", "CompletionRequest", "Completion", _ENGINE),
        "/v1/score": _post("Score texts.", "ScoreRequest", "Scores", _ENGINE),
        "/v1/models": _get("List the models.", "Models", _COMMON),
        "/v1/models/{name}": _get("Describe a model.", "Model", (*_COMMON, 404), name),
        "/tokenize": _post("Encode a text.", "TokenizeRequest", "Tokens", (*_BODY, 503)),
        "/detokenize": _post("Decode ids.", "DetokenizeRequest", "Text", (*_BODY, 503)),
        "/tokenizer_info": _get(
            "Name the special tokens.", "TokenizerInfo", (*_COMMON, 404, 503), asked
        ),
        "/healthz": _get("Say whether the server is ready.", "Health", (400, 403, 503)),
        "/metrics": _get("Show metrics for Prometheus.", None, _COMMON),
        "/openapi.json": _get("Show this description.", None, _COMMON),
    }
    completion = paths["/v1/completions"]["post"]["responses"]["200"]["content"]
    completion["text/event-stream"] = {
        "schema": {
            "type": "string",
            "description": "With stream=true: events whose data is a Completion with one choice "
            "or, for the usage, none; an Error if it fails; at last [DONE].",
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "gpt2_jax", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _get(
    summary: str, answer: str | None, statuses: Sequence[int], *parameters: Any
) -> dict[str, Any]:
    operation = {"summary": summary, "responses": _responses(answer, statuses)}
    return {"get": operation | ({"parameters": [*parameters]} if parameters else {})}


def _post(summary: str, body: str, answer: str, statuses: Sequence[int]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": _responses(answer, statuses),
        }
    }


def _responses(answer: str | None, statuses: Sequence[int]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer}"}
    content = {"application/json": {"schema": schema}} if answer else {}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    for status in statuses:
        responses[str(status)] = {"description": STATUSES[status], "content": error}
    return responses
