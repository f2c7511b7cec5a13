"""Checks the fields of a request's JSON one by one, strictly: a boolean is never an integer.

Each field carries its JSON schema too, from which the served description is made.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2_jax.errors import did_you_mean, short_repr
from gpt2_jax.serve.errors import ApiError, wrong

MOST_PROMPTS = 128
MOST_CHOICES = 16
MOST_STOPS = 32
_INT64 = 2**63


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
    """

    name: str
    text: str
    schema: Mapping[str, Any]
    check: Callable[[str, Any], Any]
    default: Any = None
    required: bool = False


def parse_json(body: bytes) -> dict[str, Any]:
    """Returns the object that a body holds.

    Raises:
      ApiError: if it is not JSON, has a number that is not finite, or is no object.
    """

    def refuse(constant: str) -> None:
        raise wrong(None, f"the body has the number {constant}, which is not JSON: send a number")

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise wrong(None, f"the body is not UTF-8: byte {error.start} is wrong") from None
    except json.JSONDecodeError as error:
        raise wrong(
            None, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits; too many brackets
        raise wrong(None, "the body is not JSON that can be read: it is too deep or long") from None
    if not isinstance(value, dict):
        raise wrong(None, f"the body must be a JSON object, not {_kind(value)}")
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
            raise ApiError(
                400,
                f"unknown field {short_repr(name)}{did_you_mean(name, known)}",
                param=name[:80],
                code="unknown_field",
            )
    values = {}
    for field in fields:
        value = body.get(field.name)
        if value is None and field.required:
            raise ApiError(400, f"{field.name} is missing", param=field.name, code="missing_field")
        values[field.name] = field.default if value is None else field.check(field.name, value)
    return values


def integer(low: int, high: int | None = None) -> dict[str, Any]:
    """Returns the schema and the check of an integer in a range, ends included."""

    def check(name: str, value: Any) -> int:
        if type(value) is not int:
            raise wrong(name, f"{name} must be an integer, not {_kind(value)}")
        if value < low or (high is not None and value > high):
            limits = f"from {low} to {high}" if high is not None else f"at least {low}"
            raise wrong(name, f"{name} must be {limits}, not {short_repr(value)}")
        return value

    limits = {"minimum": low} | ({} if high is None else {"maximum": high})
    return {"schema": {"type": "integer", **limits}, "check": check}


def number(low: float, high: float, *, above: bool = False) -> dict[str, Any]:
    """Returns the schema and the check of a number in a range; `above` leaves its low end out."""

    def check(name: str, value: Any) -> float:
        if type(value) not in (int, float):
            raise wrong(name, f"{name} must be a number, not {_kind(value)}")
        if not low <= value <= high or (above and value == low):
            limits = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise wrong(name, f"{name} must be {limits}, not {short_repr(value)}")
        return float(value)

    limits = {"exclusiveMinimum" if above else "minimum": low, "maximum": high}
    return {"schema": {"type": "number", **limits}, "check": check}


def boolean() -> dict[str, Any]:
    """Returns the schema and the check of true or false."""

    def check(name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise wrong(name, f"{name} must be true or false, not {_kind(value)}")
        return value

    return {"schema": {"type": "boolean"}, "check": check}


def string() -> dict[str, Any]:
    """Returns the schema and the check of a string."""

    def check(name: str, value: Any) -> str:
        if type(value) is not str:
            raise wrong(name, f"{name} must be a string, not {_kind(value)}")
        return value

    return {"schema": {"type": "string"}, "check": check}


def one_of(*choices: str) -> dict[str, Any]:
    """Returns the schema and the check of one of several words."""

    def check(name: str, value: Any) -> str:
        if value not in choices or type(value) is not str:
            raise wrong(name, f"{name} must be {' or '.join(choices)}, not {short_repr(value)}")
        return value

    return {"schema": {"type": "string", "enum": list(choices)}, "check": check}


def anything() -> dict[str, Any]:
    """Returns the schema and the check of a field that is ignored."""
    return {"schema": {}, "check": lambda name, value: value}


def refused(reason: str) -> dict[str, Any]:
    """Returns the schema and the check of a field that must be null."""

    def check(name: str, value: Any) -> None:
        raise ApiError(400, f"{name} {reason}", param=name, code="unsupported")

    return {"schema": {"type": "null"}, "check": check}


_ID = {"type": "integer", "minimum": 0}
_IDS = {"type": "array", "items": _ID, "minItems": 1}


def ids(name: str, value: Any, *, empty: bool = False) -> list[int]:
    """Returns a list of token ids, whose range is checked where the model is known."""
    if type(value) is not list or not (value or empty):
        raise wrong(name, f"{name} must be a list of token ids, not {_kind(value)}")
    for token in value:
        if type(token) is not int:
            raise wrong(name, f"{name} must hold integers, not {_kind(token)}")
    return value


def id_list() -> dict[str, Any]:
    """Returns the schema and the check of a list of token ids, which may be empty."""
    schema = {"type": "array", "items": _ID}
    return {"schema": schema, "check": lambda name, value: ids(name, value, empty=True)}


def text_or_ids() -> dict[str, Any]:
    """Returns the schema and the check of a text, or the ids of one."""

    def check(name: str, value: Any) -> str | list[int]:
        return value if type(value) is str else ids(name, value)

    return {"schema": {"anyOf": [{"type": "string"}, _IDS]}, "check": check}


def texts_or_ids(*, alone: bool) -> dict[str, Any]:
    """Returns the schema and the check of several texts or lists of ids, all of one kind.

    Args:
      alone: whether one text, or the ids of one, stands for a list of one.
    """

    def check(name: str, value: Any) -> list[str | list[int]]:
        if alone and type(value) is str:
            return [value]
        if type(value) is not list or not value:
            raise wrong(
                name,
                f"{name} must be a text, token ids, or a list of them that is not "
                f"empty, not {_kind(value)}",
            )
        if alone and all(type(item) is int for item in value):
            return [value]
        kinds = {type(item) for item in value}
        if kinds not in ({str}, {list}):
            raise wrong(name, f"{name} must be all texts or all lists of token ids: it is mixed")
        if len(value) > MOST_PROMPTS:
            raise wrong(name, f"{name} must be at most {MOST_PROMPTS}, not {len(value)}")
        return value if kinds == {str} else [ids(name, item) for item in value]

    several = [
        {"type": "array", "items": items, "minItems": 1, "maxItems": MOST_PROMPTS}
        for items in ({"type": "string"}, _IDS)
    ]
    single = [{"type": "string"}, _IDS] if alone else []
    return {"schema": {"anyOf": [*single, *several]}, "check": check}


def stop_strings() -> dict[str, Any]:
    """Returns the schema and the check of one or several strings that end a text."""

    def check(name: str, value: Any) -> list[str]:
        strings = [value] if type(value) is str else value
        if type(strings) is not list or any(type(text) is not str for text in strings):
            raise wrong(name, f"{name} must be a string or a list of strings")
        if len(strings) > MOST_STOPS:
            raise wrong(name, f"{name} must be at most {MOST_STOPS} strings, not {len(strings)}")
        if "" in strings:
            raise wrong(name, f"{name} must not hold an empty string")
        return strings

    text = {"type": "string", "minLength": 1}
    several = {"type": "array", "items": text, "maxItems": MOST_STOPS}
    return {"schema": {"anyOf": [text, several]}, "check": check}


def biases(most: int) -> dict[str, Any]:
    """Returns the schema and the check of {id: what is added to its logit}."""
    bias = number(-100, 100)

    def check(name: str, value: Any) -> dict[int, float]:
        if type(value) is not dict:
            raise wrong(name, f'{name} must be an object such as {{"256": -100}}')
        if len(value) > most:
            raise wrong(name, f"{name} must name at most {most} ids, not {len(value)}")
        checked: dict[int, float] = {}
        for key, added in value.items():
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise wrong(name, f"{name} must name token ids, not {short_repr(key)}")
            try:
                checked[int(key)] = bias["check"](f"{name}[{key}]", added)
            except ApiError as error:
                raise wrong(name, error.message) from None
        return checked

    schema = {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,10}$"},
        "additionalProperties": bias["schema"],
        "maxProperties": most,
    }
    return {"schema": schema, "check": check}


def nested(fields: Sequence[Field]) -> dict[str, Any]:
    """Returns the schema and the check of an object with fields of its own."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise wrong(name, f"{name} must be an object, not {_kind(value)}")
        try:
            return parse(fields, value, lenient=False)
        except ApiError as error:
            raise ApiError(400, f"{name}: {error.message}", param=name, code=error.code) from None

    return {"schema": object_schema(fields), "check": check}


def seed() -> dict[str, Any]:
    """Returns the schema and the check of an integer of 64 bits with a sign."""
    return integer(-_INT64, _INT64 - 1)


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


def _kind(value: Any) -> str:
    """Returns a value with its kind, in JSON's words."""
    kinds = {bool: "boolean", dict: "object", list: "array", str: "string", type(None): "null"}
    return f"{short_repr(value)} ({kinds.get(type(value), 'number')})"
