"""Checks the texts of a user's own that are to be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.evals.sources import SOURCES
from gpt2_jax.files.paths import local_path

EXAMPLE = "{'letters': 'letters.txt'}"
"""A mapping of texts, for messages."""


def checked_texts(texts: Any) -> dict[str, Path]:
    """Returns {name: file} of texts to score.

    Raises:
      UserError: for another type, a name that a task has or that is no name of a file, or a file
        that does not exist.
    """
    checked: dict[str, Path] = {}
    for name, path in arguments.mapping("texts", texts, example=EXAMPLE).items():
        (name,) = arguments.texts("a name in texts", [name], example="['letters']")
        if name in SOURCES or "/" in name:
            raise UserError(
                f"texts: {short_repr(name)} is the name of a task or has a slash: choose another"
            )
        checked[name] = local_path(arguments.path(f"texts[{name!r}]", path), name)
        if not checked[name].is_file():
            raise UserError(f"texts[{name!r}]: {path} is not a file")
    return checked
