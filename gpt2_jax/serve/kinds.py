"""Holds the kinds of values that fields take, each as a JSON schema with its check.

A check takes the field's name and a value, and returns what the server uses or raises `ApiError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpt2_jax.config.arguments import SAMPLING_RANGES
from gpt2_jax.serve.errors import ApiError, wrong
from gpt2_jax.serve.fields import Field, object_schema, parse, shown, with_kind

MOST_PROMPTS = 128
MOST_CHOICES = 16
MOST_STOPS = 32
_INT64 = 2**63


def integer(low: int, high: int | None = None) -> dict[str, Any]:
    """Returns the schema and the check of an integer in a range, ends included."""

    def check(name: str, value: Any) -> int:
        if type(value) is not int:
            raise wrong(name, f"{name} must be an integer, not {with_kind(value)}")
        if value < low or (high is not None and value > high):
            limits = f"from {low} to {high}" if high is not None else f"at least {low}"
            raise wrong(name, f"{name} must be {limits}, not {shown(value)}")
        return value

    limits = {"minimum": low} | ({} if high is None else {"maximum": high})
    return {"schema": {"type": "integer", **limits}, "check": check}


def number(low: float, high: float, *, above: bool = False) -> dict[str, Any]:
    """Returns the schema and the check of a number in a range; `above` leaves its low end out."""

    def check(name: str, value: Any) -> float:
        if type(value) not in (int, float):
            raise wrong(name, f"{name} must be a number, not {with_kind(value)}")
        if not low <= value <= high or (above and value == low):
            limits = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise wrong(name, f"{name} must be {limits}, not {shown(value)}")
        return float(value)

    limits = {"exclusiveMinimum" if above else "minimum": low, "maximum": high}
    return {"schema": {"type": "number", **limits}, "check": check}


def sampling(name: str) -> dict[str, Any]:
    """Returns the schema and the check of a number of `SamplingOptions`, in its range."""
    low, high = SAMPLING_RANGES[name]
    if math.isinf(high):
        return integer(int(low))
    return number(low, high, above=name == "repetition_penalty")


def boolean() -> dict[str, Any]:
    """Returns the schema and the check of true or false."""

    def check(name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise wrong(name, f"{name} must be true or false, not {with_kind(value)}")
        return value

    return {"schema": {"type": "boolean"}, "check": check}


def string() -> dict[str, Any]:
    """Returns the schema and the check of a string."""

    def check(name: str, value: Any) -> str:
        if type(value) is not str:
            raise wrong(name, f"{name} must be a string, not {with_kind(value)}")
        return value

    return {"schema": {"type": "string"}, "check": check}


def one_of(*choices: str) -> dict[str, Any]:
    """Returns the schema and the check of one of several words."""

    def check(name: str, value: Any) -> str:
        if value not in choices or type(value) is not str:
            raise wrong(name, f"{name} must be {' or '.join(choices)}, not {shown(value)}")
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
        least = "" if empty else "at least one of "
        raise wrong(name, f"{name} must be a list of {least}token ids, not {with_kind(value)}")
    for number, token in enumerate(value):
        if type(token) is not int:
            raise wrong(
                name, f"{name}[{number}] must be an integer, a token id, not {with_kind(token)}"
            )
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
        single = "a text, token ids, or " if alone else ""
        if type(value) is not list or not value:
            raise wrong(
                name,
                f"{name} must be {single}a list of texts or of lists of token ids that is not "
                f"empty, not {with_kind(value)}",
            )
        kind = type(value[0])
        if alone and kind not in (str, list):
            return [ids(name, value)]
        for number, item in enumerate(value):
            if type(item) is not kind or kind not in (str, list):
                mixed = f" beside {name}[0], {with_kind(value[0])}" if number else ""
                raise wrong(
                    name,
                    f"{name} must hold only texts or only lists of token ids, and {name}[{number}] "
                    f"is {with_kind(item)}{mixed}",
                )
        if len(value) > MOST_PROMPTS:
            kinds = "texts" if kind is str else "lists of token ids"
            raise wrong(name, f"{name} must be at most {MOST_PROMPTS} {kinds}, not {len(value)}")
        if kind is str:
            return value
        return [ids(f"{name}[{number}]", item) for number, item in enumerate(value)]

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
        if type(strings) is not list:
            raise wrong(name, f"{name} must be one or several strings, not {with_kind(value)}")
        if len(strings) > MOST_STOPS:
            raise wrong(name, f"{name} must be at most {MOST_STOPS} strings, not {len(strings)}")
        for number, text in enumerate(strings):
            if type(text) is not str or not text:
                entry = f"{name}[{number}]" if strings is value else name
                raise wrong(
                    name, f"{entry} must be a string that is not empty, not {with_kind(text)}"
                )
        return strings

    text = {"type": "string", "minLength": 1}
    several = {"type": "array", "items": text, "maxItems": MOST_STOPS}
    return {"schema": {"anyOf": [text, several]}, "check": check}


def biases(most: int) -> dict[str, Any]:
    """Returns the schema and the check of {id: what is added to its logit}."""
    bias = number(-100, 100)

    def check(name: str, value: Any) -> dict[int, float]:
        if type(value) is not dict:
            raise wrong(
                name, f'{name} must be an object such as {{"256": -100}}, not {with_kind(value)}'
            )
        if len(value) > most:
            raise wrong(name, f"{name} must name at most {most} ids, not {len(value)}")
        checked: dict[int, float] = {}
        for key, added in value.items():
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise wrong(name, f"{name} must name token ids, not {shown(key)}")
            if int(key) in checked:
                raise wrong(name, f"{name} has the token id {int(key)} twice: send it once")
            checked[int(key)] = bias["check"](f"{name}[{key}]", added)
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
            raise wrong(name, f"{name} must be an object, not {with_kind(value)}")
        try:
            return parse(fields, value, lenient=False)
        except ApiError as error:
            raise ApiError(400, f"{name}: {error.message}", param=name, code=error.code) from None

    return {"schema": object_schema(fields), "check": check, "fields": fields}


def seed() -> dict[str, Any]:
    """Returns the schema and the check of an integer of 64 bits with a sign."""
    return integer(-_INT64, _INT64 - 1)
