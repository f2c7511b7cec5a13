"""Checks the fields of a request's JSON one by one, strictly: a boolean is never an integer.

Each field carries its JSON schema too, from which the served description is made.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2_jax.errors import did_you_mean
from gpt2_jax.serve.errors import ApiError, wrong

_LONGEST_SHOWN = 80
# What other APIs call a field.
_INSTEAD = {
    "messages": "prompt",
    "input": "prompt",
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "stop_sequences": "stop",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """Describes a field of a request.

    Attributes:
      name: of the field.
      text: what it does.
      schema: JSON schema of its values but null.
      check: returns the value as the server uses it, or raises ApiError.
      default: what stands for null, and for a field that is missing.
      required: whether it may not be missing.
      fields: of the objects that it holds, if it holds objects.
    """

    name: str
    text: str
    schema: Mapping[str, Any]
    check: Callable[[str, Any], Any]
    default: Any = None
    required: bool = False
    fields: Sequence[Field] = ()


def parse_json(body: bytes) -> dict[str, Any]:
    """Returns the object that a body holds.

    Raises:
      ApiError: if it is not JSON, has a number that is not finite, or is no object, or if an
        object in it has two values of one name.
    """

    def refuse(constant: str) -> None:
        raise wrong(None, f"the body has the number {constant}, which is not JSON: send a number")

    def finite(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise wrong(None, f"the body has the number {digits[:30]}, which is too large")
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            (name, _), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
            raise wrong(name[:80], f"the body has {shown(name)} twice in one object: send it once")
        return found

    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=refuse,
            parse_float=finite,
            object_pairs_hook=unique,
        )
    except UnicodeDecodeError as error:
        raise wrong(None, f"the body is not UTF-8: byte {error.start} is wrong") from None
    except json.JSONDecodeError as error:
        raise wrong(
            None, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits; too many brackets
        raise wrong(None, "the body is not JSON that can be read: it is too deep or long") from None
    if not isinstance(value, dict):
        raise wrong(None, f"the body must be a JSON object, not {with_kind(value)}")
    return value


def parse(fields: Sequence[Field], body: Mapping[str, Any], *, lenient: bool) -> dict[str, Any]:
    """Returns the checked value of every field.

    Args:
      fields: that the request may have.
      body: the JSON object.
      lenient: whether unknown fields are ignored.

    Raises:
      ApiError: for the first field that is unknown, missing or wrong.
    """
    known = {field.name for field in fields}
    for name in body:
        if name not in known and not lenient:
            instead = _INSTEAD.get(name)
            hint = f"; did you mean {instead!r}?" if instead in known else did_you_mean(name, known)
            raise ApiError(
                400, f"unknown field {shown(name)}{hint}", param=name[:80], code="unknown_field"
            )
    values = {}
    for field in fields:
        value = body.get(field.name)
        if value is None and field.required:
            raise ApiError(400, f"{field.name} is missing", param=field.name, code="missing_field")
        if lenient and field.fields:
            value = _only_known(value, {known.name for known in field.fields})
        values[field.name] = field.default if value is None else field.check(field.name, value)
    return values


def _only_known(value: Any, names: set[str]) -> Any:
    """Returns an object, or a list of objects, without fields of other names."""
    if isinstance(value, list):
        return [_only_known(item, names) for item in value]
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if name in names}
    return value


def object_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """Returns the JSON schema of an object with these fields."""
    return {
        "type": "object",
        "properties": {field.name: _described(field) for field in fields},
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }


def _described(field: Field) -> dict[str, Any]:
    # Null stands for the default, as clients send it for what their caller has left out.
    schema = dict(field.schema)
    if schema and schema.get("type") != "null" and not field.required:
        schema = {"anyOf": [schema, {"type": "null"}]}
    shown = {} if field.default is None else {"default": field.default}
    return schema | {"description": field.text} | shown


def shown(value: Any) -> str:
    """Returns a value as JSON, cut to 80 characters, for messages that quote it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):  # a number of thousands of digits; too many brackets
        return "a value too large to show"
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def with_kind(value: Any) -> str:
    """Returns a value with its kind, in JSON's words."""
    if value is None:
        return "null"
    kinds = {bool: "boolean", dict: "object", list: "array", str: "string"}
    return f"{shown(value)} ({kinds.get(type(value), 'number')})"
