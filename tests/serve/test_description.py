"""Tests that the served description is true: of paths, fields, limits and answers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gpt2_jax.serve import completions, description
from tests.serve.serving import Client

# What may stand in a path.
_PARTS = {
    "name": "tiny",
    "document": "explorer.md",
    "path": "index.html",
    "id": "0" * 32,
    "address": "logits",
}


def check(value: Any, schema: dict[str, Any], where: str = "") -> None:
    """Raises AssertionError unless a value is as a schema says, and has no more than it says."""
    if "$ref" in schema:
        check(value, description.SCHEMAS[schema["$ref"].rpartition("/")[2]], where)
    elif "anyOf" in schema:
        problems = []
        for choice in schema["anyOf"]:
            try:
                return check(value, choice, where)
            except AssertionError as problem:
                problems.append(str(problem))
        raise AssertionError(problems)
    else:
        kinds = {
            "object": dict,
            "array": list,
            "string": str,
            "integer": int,
            "boolean": bool,
            "number": (int, float),
            "null": type(None),
        }
        assert isinstance(value, kinds[schema["type"]]), (where, value, schema)
        assert value in schema.get("enum", [value]), where
        for item in value if isinstance(value, list) else []:
            check(item, schema["items"], f"{where}[]")
        if isinstance(value, dict):
            properties, others = schema.get("properties", {}), schema.get("additionalProperties")
            assert {*schema.get("required", [])} <= {*value}, where
            assert others or {*value} <= {*properties}, (where, value)
            for key, item in value.items():
                check(item, properties.get(key, others), f"{where}.{key}")


@pytest.fixture(scope="module")
def described(server: Client) -> dict[str, Any]:
    return server.get("/openapi.json").json


def test_every_path_is_described_and_every_described_path_is_there(
    server: Client, described: dict[str, Any]
) -> None:
    for path, operations in described["paths"].items():
        for method in ("get", "post"):
            filled = re.sub(r"\{(\w+)\}", lambda part: _PARTS[part[1]], path)
            reply = server.send(method.upper(), filled)
            assert (reply.status == 405) == (method not in operations), (method, path)
            assert reply.status != 404
            if method in operations:
                assert str(reply.status) in operations[method]["responses"], (path, reply)
    routes = server.server.config.app._app.routes
    assert {route.path.replace(":path", "") for route in routes} == {*described["paths"]}


def test_answers_are_as_described(client: Client, described: dict[str, Any]) -> None:
    full = {"logprobs": 2, "echo": True, "n": 2, "return_token_ids": True}
    posts = {
        "/v1/completions": [{"model": "tiny"}, {"model": "tiny", **full}, {}],
        "/v1/score": [{"model": "tiny", "prompt": "xyz"}, {"model": "none", "prompt": "x"}],
        "/tokenize": [{"prompt": "xyz"}, {}],
        "/detokenize": [{"tokens": [1]}, {"tokens": [9999]}],
    }
    replies = [("post", path, client.post(path, **body)) for path in posts for body in posts[path]]
    paths = ("/v1/models", "/v1/models/tiny", "/v1/models/none", "/tokenizer_info", "/healthz")
    replies += [("get", path, client.get(path)) for path in paths]
    for method, path, reply in replies:
        known = path.replace("/tiny", "/{name}").replace("/none", "/{name}")
        answers = described["paths"][known][method]["responses"]
        schema = answers[str(reply.status)]["content"]["application/json"]["schema"]
        check(reply.json, schema, path)
    for chunk in client.stream(**full, stream_options={"include_usage": True}):
        check(chunk, description.SCHEMAS["Completion"])


def test_the_limits_of_numbers_are_those_described(client: Client) -> None:
    properties = description.SCHEMAS["CompletionRequest"]["properties"]
    assert [*properties] == [field.name for field in completions.FIELDS]
    base = {"n": 1, "max_tokens": 1, "prompt": "ab"}
    tried = 0
    for name, schema in properties.items():
        number = next(
            (s for s in schema.get("anyOf", []) if s.get("type") in ("integer", "number")), None
        )
        if number is None or name == "best_of":
            continue
        integer = number["type"] == "integer"
        for key, beyond in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0)):
            if key not in number:
                continue
            tried += 1
            limit = number[key]
            if key != "exclusiveMinimum" and (name, key) != ("max_tokens", "minimum"):
                client.complete(**base | {name: limit})
            wrong = limit + beyond if integer else limit + beyond / 8
            assert client.refusal(**base | {name: wrong})[:2] == (400, name)
    assert tried >= 20


def test_defaults_are_those_described(client: Client) -> None:
    properties = description.SCHEMAS["CompletionRequest"]["properties"]
    defaults = {
        name: schema["default"] for name, schema in properties.items() if "default" in schema
    }
    assert defaults["max_tokens"] == 16
    defaults |= {"seed": 3, "model": "tiny"}
    reply = client.post("/v1/completions", **defaults)
    assert reply.json["choices"] == client.complete("", seed=3)["choices"]
