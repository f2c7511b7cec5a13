"""Checks of what a caller passes to the Python API, which takes what the command line takes.

Each function returns the value in its plain Python type, so that numbers of NumPy and JAX are
accepted. An error names the argument, what is allowed, and the value.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any

from gpt2_jax.errors import UserError, short_repr

# Limits that the command line and the Python API share.
MOST_SAMPLES = 10_000  # of one call, which holds all of them until the last is finished
LARGEST_SEED = 2**32 - 1  # JAX takes 32 bits of a seed: larger ones would repeat others
SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (-1, math.inf),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 10),
    "no_repeat_ngram_size": (0, math.inf),
}
"""The lowest and highest value of each number that says how a token is drawn, those of the server's
API; `repetition_penalty` must be above its lowest."""


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """Returns an integer of any integer type.

    Raises:
      UserError: for another type, including a boolean, or a value out of range.
    """
    try:
        number = None if _is_boolean(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise UserError(f"{name} must be an integer, not {_shown(value)}")
    if low is not None and number < low:
        raise UserError(f"{name} must be at least {low}, not {short_repr(number)}")
    if high is not None and number > high:
        raise UserError(f"{name} must be at most {high}, not {short_repr(number)}")
    return number


def optional_integer(name: str, value: Any, *, low: int) -> int | None:
    """Returns `integer(...)`, or None if the value is None."""
    return None if value is None else integer(name, value, low=low)


def number(name: str, value: Any) -> float:
    """Returns a finite number of any real type as a float.

    Raises:
      UserError: for another type, including a boolean and a string, or a value that is not finite.
    """
    # Only numbers have these methods; float() would also parse a string.
    is_number = hasattr(value, "__float__") or hasattr(value, "__index__")
    try:
        result = float(value) if is_number and not _is_boolean(value) else None
    except (TypeError, ValueError, OverflowError):
        result = None
    if result is None:
        raise UserError(f"{name} must be a number, not {_shown(value)}")
    if not math.isfinite(result):
        raise UserError(f"{name} must be finite, not {result}")
    return result


def boolean(name: str, value: Any) -> bool:
    """Returns True or False.

    Raises:
      UserError: for a value of another type, such as the string "false", which would count as true.
    """
    if not _is_boolean(value):
        raise UserError(f"{name} must be True or False, not {_shown(value)}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """Returns a string.

    Raises:
      UserError: for another type.
    """
    if not isinstance(value, str):
        raise UserError(f"{name} must be a string, not {_shown(value)}")
    return value


def texts(name: str, value: Any, *, example: str) -> list[str]:
    """Returns a list of strings that are not empty.

    Args:
      name: the argument.
      value: any collection of strings that is not itself a string, whose characters would be taken.
      example: a list for the message, as a caller would write it.

    Raises:
      UserError: for another type, or an empty string.
    """
    items = None if isinstance(value, (str, bytes, Mapping)) else _items(value)
    if items is None:
        raise UserError(f"{name} must be a list of strings such as {example}, not {_shown(value)}")
    result = [text(f"{name}[{index}]", item) for index, item in enumerate(items)]
    if "" in result:
        raise UserError(f"{name} must not contain an empty string")
    return result


def integers(name: str, value: Any) -> list[int]:
    """Returns the token ids of a sequence, which must have at least one.

    Raises:
      UserError: for another type, including a string, or an item that is not an integer.
    """
    items = None if isinstance(value, (str, bytes, bytearray, Mapping)) else _items(value)
    if items is None:
        raise UserError(f"{name} must be a string or a list of token ids, not {_shown(value)}")
    result = [integer(f"{name}[{index}]", item) for index, item in enumerate(items)]
    if not result:
        raise UserError(f"{name} is an empty list: give at least one token id")
    return result


def path(name: str, value: Any) -> str:
    """Returns a path that a file can have, as a string; whether there is a file is not checked.

    Raises:
      UserError: for another type, an empty string, or a name that the system refuses.
    """
    text = path_name(name, value)
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"{name}: cannot use {short_repr(text)}: {error.strerror}") from error
    except ValueError as error:  # a null character, or a surrogate that is not of a file's name
        raise UserError(f"{name}: {short_repr(text)} cannot be the name of a file") from error
    return text


def path_name(name: str, value: Any) -> str:
    """Returns a path as a string; whether a file can have this name is not checked.

    Raises:
      UserError: for another type, or an empty string.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise UserError(f"{name} must be a path, not {_shown(value)}")
    if not os.fspath(value):
        raise UserError(f"{name} is empty: name a path")
    return os.fspath(value)


def mapping(name: str, value: Any, *, example: str) -> Mapping[Any, Any]:
    """Returns a mapping.

    Raises:
      UserError: for another type.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{name} must be a mapping such as {example}, not {_shown(value)}")
    return value


def _items(value: Any) -> Iterator[Any] | None:
    """Returns an iterator over a collection, and None for any other value."""
    try:
        return iter(value)
    except TypeError:  # an array without dimensions has the method, and refuses
        return None


def _is_boolean(value: Any) -> bool:
    """Returns whether a value is a boolean of Python or NumPy; both count as integers elsewhere."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"


def _shown(value: Any) -> str:
    """Returns a value in one line with its type, because "3" and 3 look alike in a message."""
    quoted = " ".join(short_repr(value).split())
    return quoted if value is None else f"{quoted} ({type(value).__name__})"
