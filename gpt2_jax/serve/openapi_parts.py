"""Holds the words in which OpenAPI describes paths and the JSON that they take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_jax.serve.errors import STATUSES

INTEGER: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
STRING: dict[str, Any] = {"type": "string"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
COMMON = (400, 401, 403)
BODY = (*COMMON, 404, 408, 413, 415)
ENGINE = (*BODY, 429, 500, 503, 504)


def list_of(items: Any) -> dict[str, Any]:
    """Returns the schema of an array."""
    return {"type": "array", "items": items}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a value or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def object_of(optional: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    """Returns the schema of an object, whose properties are required but for some."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def in_path(name: str) -> dict[str, Any]:
    """Returns the parameter for a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": STRING}


def in_query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a parameter of the address that may be missing."""
    return {"name": name, "in": "query", "required": False, "schema": schema}


def get(
    summary: str, answer: str | None, statuses: Sequence[int], *parameters: Any
) -> dict[str, Any]:
    """Returns a path that is read.

    Args:
      summary: what it does.
      answer: the schema of its JSON, if it is JSON.
      statuses: of errors.
      parameters: of `in_path` and `in_query`.
    """
    operation = {"summary": summary, "responses": _responses(answer, statuses)}
    return {"get": operation | ({"parameters": [*parameters]} if parameters else {})}


def post(summary: str, body: str, answer: str | None, statuses: Sequence[int]) -> dict[str, Any]:
    """Returns a path to which JSON is sent; see `get`."""
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
