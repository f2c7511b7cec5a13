"""Recognizes errors that a bad value of one of JAX's environment variables causes.

JAX reads them when it is imported, and some when it starts its devices. Nothing here imports JAX.
"""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from gpt2_jax.errors import error_text, shortened

_READ_BY = ("jax", "_src", "config.py")
_CPU_DEVICES = "JAX_NUM_CPU_DEVICES"


def refused_variable(error: BaseException) -> str | None:
    """Returns a line about the variable `JAX_...` that has caused an error, or None if none has."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    count = variables.get(_CPU_DEVICES, "")
    if isinstance(error, RuntimeError) and "backend 'cpu'" in str(error) and _is_zero(count):
        return f"{_CPU_DEVICES}={count} in the environment must be at least 1: raise it or unset it"
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if not any(file.parts[-len(_READ_BY) :] == _READ_BY for file in files):
        return None
    message = str(error)
    words = re.sub(r"\W", "_", message).upper()  # as in "jax.default_device", "jax_enable_x64"
    named = [name for name in variables if name in words]
    named = named or [name for name, value in variables.items() if repr(value) in message]
    if not named:
        return None
    name = max(named, key=len)  # one name may be the beginning of another
    return (
        f"{name}={shortened(variables[name], 80)} in the environment is not a value that JAX takes "
        f"({shortened(error_text(error), 200)}): correct it or unset it"
    )


def _is_zero(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?0+\s*", text))
