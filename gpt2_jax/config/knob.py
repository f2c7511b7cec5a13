"""One knob of the config: its declaration, and how a value for it is parsed and checked."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any, cast

from gpt2_jax.config.synonyms import VALUES
from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.files.paths import expand_home

# Devices use int32 for sizes and counts.
MOST = 2**31 - 1


def knob(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float = MOST,
    below: float | None = None,
    changes_function: bool = True,
    is_path: bool = False,
) -> Any:
    """Declares a dataclass field with its documentation and its allowed values.

    Args:
      default: the value if nobody sets it; None means unset, whatever the field's type.
      help: what the knob does, in one line.
      choices: the allowed values, if they can be listed.
      low, high, below: the range of a number: low <= value <= high, and value < below.
      changes_function: for a field of the model, whether models that differ in it are different
        functions of their parameters.
      is_path: whether the value is a path, which may begin with `~`.
    """
    limits = {"choices": choices, "low": low, "high": high, "below": below}
    metadata = {"help": help, **limits, "changes_function": changes_function, "is_path": is_path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Knob:
    """Describes one leaf of the config for help texts, overrides and checks."""

    key: str
    type: type
    default: Any
    help: str
    choices: tuple[Any, ...] | None
    low: float | None
    high: float
    below: float | None
    changes_function: bool
    is_path: bool

    @property
    def optional(self) -> bool:
        """Returns whether the knob may be unset, which is None."""
        return self.default is None


def parse(knob: Knob, text: str) -> Any:
    """Returns the string of an override as a value of the knob's type."""
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
    kind = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}[knob.type]
    return UserError(f"{knob.key} must be {kind}, not {short_repr(value)}")


def checked(knob: Knob, value: Any) -> Any:
    """Returns the value in the knob's type.

    Raises:
      UserError: naming the knob, the value and the allowed range.
    """
    if value is None and knob.optional:
        return None
    # The scalars of NumPy belong to these classes of `numbers`, too.
    kind = {int: numbers.Integral, float: numbers.Real}.get(knob.type, knob.type)
    if not isinstance(value, kind) or isinstance(value, bool) != (knob.type is bool):
        raise _wrong_type(knob, value)
    if knob.choices and value not in knob.choices:
        hint = _meant(knob.key, str(value), knob.choices)
        raise UserError(
            f"{knob.key} must be one of {', '.join(map(str, knob.choices))}, not "
            f"{short_repr(value)}{hint}"
        )
    if knob.type in (int, float):
        number = cast(Any, value)
        _check_range(knob, number)
        return knob.type(number)
    return expand_home(str(value), knob.key) if knob.is_path else value


def _meant(key: str, value: str, choices: Sequence[Any]) -> str:
    """Returns what is meant by a value elsewhere, or else by a value that is spelled wrong."""
    if instead := VALUES.get(key, {}).get(value.lower()):
        return f"; write {instead}"
    return did_you_mean(value, map(str, choices), closeness=0.75)


def _check_range(knob: Knob, value: Any) -> None:
    if not -math.inf < value < math.inf:
        raise UserError(f"{knob.key} must be finite, not {value!r}")
    if knob.low is not None and value < knob.low:
        raise UserError(f"{knob.key} must be at least {knob.low:g}, not {short_repr(value)}")
    if knob.below is not None and value >= knob.below:
        raise UserError(f"{knob.key} must be below {knob.below:g}, not {short_repr(value)}")
    if value > knob.high:
        raise UserError(f"{knob.key} must be at most {knob.high}, not {short_repr(value)}")
