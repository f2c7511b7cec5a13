"""One knob of the config: its declaration, and how a value for it is read and checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from gpt2_jax.errors import UserError, did_you_mean, shown

# Devices count in int32.
MOST = 2**31 - 1


def knob(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float = MOST,
    below: float | None = None,
) -> Any:
    """A dataclass field with its documentation and its allowed values, `low` included."""
    limits = {"choices": choices, "low": low, "high": high, "below": below}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Knob:
    """One leaf of the config: what `--help`, overrides and checks need to know of it."""

    key: str
    type: type
    optional: bool
    default: Any
    help: str
    choices: tuple[Any, ...] | None
    low: float | None
    high: float
    below: float | None


def parse(knob: Knob, text: str) -> Any:
    """Reads an override's text as the knob's type."""
    if knob.optional and text.lower() in ("none", "null", ""):
        return None
    if knob.type is bool:
        truth = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in truth:
            raise UserError(f"{knob.key} must be true or false, not {text!r}")
        return truth[text.lower()]
    try:
        return knob.type(text)
    except ValueError:
        raise _wrong_type(knob, text) from None


def _wrong_type(knob: Knob, value: Any) -> UserError:
    kind = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[knob.type]
    return UserError(f"{knob.key} must be {kind}, not {shown(value)}")


def checked(knob: Knob, value: Any) -> Any:
    """The value in the knob's type, or an error that names field, value and allowed range."""
    if value is None and knob.optional:
        return None
    kinds = (int, float) if knob.type is float else (knob.type,)
    if not isinstance(value, kinds) or isinstance(value, bool) != (knob.type is bool):
        raise _wrong_type(knob, value)
    if knob.choices and value not in knob.choices:
        hint = did_you_mean(str(value), map(str, knob.choices))
        raise UserError(
            f"{knob.key} must be one of {', '.join(map(str, knob.choices))}, not {shown(value)}"
            f"{hint}"
        )
    if isinstance(value, (int, float)) and knob.type is not bool:
        _check_range(knob, value)
        return knob.type(value)
    return value


def _check_range(knob: Knob, value: float) -> None:
    if not -math.inf < value < math.inf:
        raise UserError(f"{knob.key} must be finite, not {value!r}")
    if knob.low is not None and value < knob.low:
        raise UserError(f"{knob.key} must be at least {knob.low:g}, not {shown(value)}")
    if knob.below is not None and value >= knob.below:
        raise UserError(f"{knob.key} must be below {knob.below:g}, not {shown(value)}")
    if value > knob.high:
        raise UserError(f"{knob.key} must be at most {knob.high}, not {shown(value)}")
