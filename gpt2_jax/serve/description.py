"""Describes the API as OpenAPI does, from the tables by which requests are checked."""

from __future__ import annotations

import functools
from typing import Any

from gpt2_jax import __version__
from gpt2_jax.serve import completions, explorer_description, scores, tokenization
from gpt2_jax.serve.fields import object_schema
from gpt2_jax.serve.openapi_parts import (
    BODY,
    BOOLEAN,
    COMMON,
    ENGINE,
    INTEGER,
    NUMBER,
    STRING,
    get,
    in_path,
    in_query,
    list_of,
    object_of,
    or_null,
    post,
)

_USAGE = object_of(prompt_tokens=INTEGER, completion_tokens=INTEGER, total_tokens=INTEGER)
_LOGPROBS = object_of(
    tokens=list_of(STRING),
    token_logprobs=list_of(or_null(NUMBER)),
    top_logprobs=list_of(or_null({"type": "object", "additionalProperties": NUMBER})),
    text_offset=list_of(INTEGER),
)
_CHOICE = object_of(
    ("token_ids", "prompt_token_ids"),
    index=INTEGER,
    text=STRING,
    logprobs=or_null(_LOGPROBS),
    finish_reason=or_null({"type": "string", "enum": ["stop", "length"]}),
    token_ids=list_of(INTEGER),
    prompt_token_ids=or_null(list_of(INTEGER)),
)
_HEAD = {
    "id": STRING,
    "object": STRING,
    "created": INTEGER,
    "model": STRING,
    "system_fingerprint": STRING,
}
_SCORE = object_of(
    index=INTEGER,
    logprob=NUMBER,
    is_greedy=BOOLEAN,
    tokens=list_of(STRING),
    token_ids=list_of(INTEGER),
    token_logprobs=list_of(or_null(NUMBER)),
)
_MODEL = object_of(
    id=STRING, object=STRING, created=INTEGER, owned_by=STRING, max_model_len=INTEGER
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "CompletionRequest": object_schema(completions.FIELDS),
    "Completion": object_of(
        ("usage",),
        **_HEAD,
        seed=INTEGER,
        choices=list_of(_CHOICE),
        usage=or_null(_USAGE),
    ),
    "ScoreRequest": object_schema(scores.FIELDS),
    "Scores": object_of((), **_HEAD, scores=list_of(_SCORE), usage=_USAGE),
    "TokenizeRequest": object_schema(tokenization.TOKENIZE_FIELDS),
    "Tokens": object_of(tokens=list_of(INTEGER), count=INTEGER, max_model_len=INTEGER),
    "DetokenizeRequest": object_schema(tokenization.DETOKENIZE_FIELDS),
    "Text": object_of(prompt=STRING),
    "TokenizerInfo": object_of(
        tokenizer_class=STRING,
        vocab_size=INTEGER,
        model_max_length=INTEGER,
        eos_token=or_null(STRING),
        bos_token=STRING,
        pad_token={"type": "null"},
        chat_template={"type": "null"},
    ),
    "Model": _MODEL,
    "Models": object_of(object=STRING, data=list_of({"$ref": "#/components/schemas/Model"})),
    "Health": object_of(status=STRING),
    "Error": object_of(
        error=object_of(
            ("counts",),
            message=STRING,
            type=STRING,
            param=or_null(STRING),
            code=or_null(STRING),
            counts=object_of(("most", "position"), tokens=INTEGER, most=INTEGER, position=INTEGER),
        )
    ),
    **explorer_description.SCHEMAS,
}
"""The schemas of what is sent and answered."""


@functools.cache
def openapi(*, explorer: bool = True) -> dict[str, Any]:
    """Returns the description that is served at /openapi.json.

    Args:
      explorer: whether the server has the explorer.
    """
    name, asked = in_path("name"), in_query("model", STRING)
    paths = {
        "/v1/completions": post("Complete texts.", "CompletionRequest", "Completion", ENGINE),
        "/v1/score": post("Score texts.", "ScoreRequest", "Scores", ENGINE),
        "/v1/models": get("List the models.", "Models", COMMON),
        "/v1/models/{name}": get("Describe a model.", "Model", (*COMMON, 404), name),
        "/tokenize": post("Encode a text.", "TokenizeRequest", "Tokens", (*BODY, 503)),
        "/detokenize": post("Decode ids.", "DetokenizeRequest", "Text", (*BODY, 503)),
        "/tokenizer_info": get(
            "Name the special tokens.", "TokenizerInfo", (*COMMON, 404, 503), asked
        ),
        "/healthz": get("Say whether the server is ready.", "Health", (400, 403, 503)),
        "/metrics": get("Show metrics for Prometheus.", None, COMMON),
        "/openapi.json": get("Show this description.", None, COMMON),
    }
    if explorer:
        paths |= explorer_description.paths()
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
