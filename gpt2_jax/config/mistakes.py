"""What is wrong in a config file that fails, and on which line, in the words of this package."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from typing import Any

import ml_collections

from gpt2_jax.config.hints import suggest
from gpt2_jax.config.knob import checked
from gpt2_jax.config.sections import knobs
from gpt2_jax.errors import UserError, error_text, short_repr, shortened

# The message of an exception may quote a whole value.
_LONGEST_REASON = 300


def explain(path: Path, error: BaseException) -> str:
    """Returns where a config file failed and why, in one line."""
    return f"{where(path, error)}: {shortened(_reason(error), _LONGEST_REASON)}"


def where(path: Path, error: BaseException) -> str:
    """Returns the innermost line of the config file, or of one beside it: its author can fix it."""
    folder = os.path.abspath(path.parent)
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    own = [
        (path.parent / os.path.basename(name), line)
        for name, line in places
        if not name.startswith("<") and os.path.dirname(os.path.abspath(name)) == folder
    ]
    if not own:
        return str(path)
    file, line = own[-1]
    return f"{file}, line {line}" if line else str(file)


def _reason(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and frames[-1].f_globals.get("__name__", "").startswith("ml_collections."):
        for frame in reversed(frames):
            if frame.f_code.co_name == "__setitem__" and isinstance(error, TypeError):
                return _wrong_value(**frame.f_locals) or error_text(error)
        return _reason_of_library(error)
    if isinstance(error, SyntaxError):
        return str(error.msg)
    text = str(error) if isinstance(error, Exception) else short_repr(error)
    if not isinstance(error, Exception):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _wrong_value(**local: Any) -> str | None:
    """Returns what is wrong with a value, from the variables of the call that has refused it."""
    config, name, value = local.get("self"), local.get("key"), local.get("value")
    if not isinstance(config, ml_collections.ConfigDict) or not isinstance(name, str):
        return None
    if isinstance(config.get(name), ml_collections.ConfigDict):
        return f"config section {name!r} must hold knobs, not {short_repr(value)}"
    siblings = {*config.keys()}
    for knob in knobs():
        section, _, own = knob.key.partition(".")
        if own == name and siblings == {
            other.key.partition(".")[2] for other in knobs() if other.key.startswith(f"{section}.")
        }:
            try:
                checked(knob, value)
            except UserError as refusal:
                return str(refusal)
    return None


def _reason_of_library(error: BaseException) -> str:
    """Returns the message of an error that ml_collections has raised."""
    inner = error.args[0] if error.args else None
    if isinstance(error, AttributeError) and isinstance(inner, KeyError):
        error = inner
    text = str(error.args[0]) if error.args else error_text(error)
    if isinstance(error, KeyError):
        if "trying to delete" in text:
            return "a knob or a section of the config cannot be deleted: give it another value"
        if name := re.search(r'Key "(\w+)"', text) or re.fullmatch(r"'?(\w+)'?", text):
            return f"the config has no {name[1]!r} there{suggest(name[1])}"
    # ml_collections lists every field of the section before its did-you-mean.
    return re.sub(r" Other fields present: .*?(?=Did you mean|$)", " ", " ".join(text.split()))
