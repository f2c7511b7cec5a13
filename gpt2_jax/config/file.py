"""A config file is a program: what is run, and what may go wrong in it."""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from gpt2_jax.errors import UserError, did_you_mean, shown


def run_config_file(path: Path) -> Mapping[str, Any]:
    """The values of what its `get_config()` returns, by section.

    Raises:
      UserError: for a file that is missing or fails, with the line that its author can mend.
    """
    if path.is_dir() or (path.is_file() and path.suffix != ".py"):
        raise UserError(f"--config {path}: expected a Python file, such as configs/quickstart.py")
    if not path.is_file():
        siblings = {str(p): p for p in path.parent.glob("*.py")} if path.parent.is_dir() else {}
        raise UserError(f"no config file {path}{did_you_mean(str(path), siblings)}")
    try:
        namespace = runpy.run_path(str(path))
        if "get_config" not in namespace:
            raise UserError(f"{path} defines no get_config()")
        result = namespace["get_config"]()
        if not isinstance(result, ml_collections.ConfigDict):
            raise UserError(
                f"{path}: get_config() must return gpt2_jax.config.default() with changes"
            )
        return result.to_dict()
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit(0), too, would else look like a run that is done
        # The innermost line that belongs to the config file is the one its author can mend.
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        where = f"{path}, line {line}" if line else path
        raise UserError(f"{where}: {_reason(error)}") from error


# A message may quote a whole value.
_LONGEST_REASON = 300


def _reason(error: BaseException) -> str:
    """What an exception in a config file says, in one line."""
    plain = isinstance(error, Exception) and error.args
    text = str(error.args[0]) if plain else shown(error)
    # ml_collections lists every field of the section before its did-you-mean, and quotes the text
    # of a KeyError once more.
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split()).strip("'")
    text = re.sub(r" Other fields present: .*?(?=Did you mean|$)", " ", text)
    return text[:_LONGEST_REASON]
