"""Running config files, which are Python programs, and reporting their errors."""

from __future__ import annotations

import inspect
import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from gpt2_jax.config.imports import as_config_file
from gpt2_jax.config.mistakes import explain
from gpt2_jax.config.shipped import shipped_configs
from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.files.paths import local_path


def split_argument(path: str | Path) -> tuple[Path, str]:
    """Splits `FILE.py:name=value,...` into the file and its argument, empty if there is none.

    Instead of a file, the name of a config that comes with the package is accepted.
    """
    file, colon, argument = str(path).partition(".py:")
    if colon:
        return local_path(f"{file}.py", "--config"), argument
    name, _, argument = str(path).partition(":")
    if name in (shipped := shipped_configs()):
        return shipped[name], argument
    return local_path(str(path), "--config"), ""


def run_config_file(path: Path, argument: str = "") -> Mapping[str, Any]:
    """Returns the values that the file's `get_config()` returns, by section.

    Args:
      path: the Python file.
      argument: `name=value,...`, the parameters of `get_config`; each is parsed as the type of its
        default value.

    Raises:
      UserError: for a file that is missing or fails, with the line that its author can fix, or for
        an argument that `get_config` does not take.
    """
    if path.is_dir() or (path.is_file() and path.suffix != ".py"):
        raise UserError(f"--config {path}: expected a Python file, such as configs/quickstart.py")
    if not path.is_file():
        raise UserError(f"no config file {path}{_hint_for_missing(path)}")
    absolute = Path(os.path.abspath(path))
    try:
        with as_config_file(absolute) as package:
            return _call_get_config(path, f"{package}.{path.stem}" if package else "", argument)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # includes sys.exit(0), which would look like a finished run
        raise UserError(explain(path, error)) from error


def _call_get_config(path: Path, module: str, argument: str) -> Mapping[str, Any]:
    namespace = runpy.run_path(str(path), run_name=module or None)
    if "get_config" not in namespace:
        raise UserError(f"{path} defines no get_config()")
    get_config = namespace["get_config"]
    result = get_config(**_parsed(path, get_config, argument))
    if not isinstance(result, ml_collections.ConfigDict):
        raise UserError(f"{path}: get_config() must return gpt2_jax.config.default() with changes")
    return result.to_dict()


def _hint_for_missing(path: Path) -> str:
    shipped = shipped_configs()
    if path.stem in shipped:
        return f"; the package has a config of this name: --config {path.stem}"
    siblings = {str(p): p for p in path.parent.glob("*.py")} if path.parent.is_dir() else {}
    if hint := did_you_mean(str(path), [*siblings, *shipped]):
        return hint
    names = f", or one of the package's configs: {', '.join(shipped)}" if shipped else ""
    return f": give its path from the current folder{names}"


def _parsed(path: Path, get_config: Any, argument: str) -> dict[str, Any]:
    """Returns `name=value,...` as keyword arguments of the types of the parameters' defaults."""
    defaults = {name: p.default for name, p in inspect.signature(get_config).parameters.items()}
    empty = inspect.Parameter.empty
    if required := [name for name, value in defaults.items() if value is empty]:
        raise UserError(f"{path}: get_config's parameter {required[0]!r} needs a default value")
    values: dict[str, Any] = {}
    for entry in filter(None, argument.split(",")):
        name, equals, text = (word.strip() for word in entry.partition("="))
        if name not in defaults or not equals:
            takes = ", ".join(f"{key}={value}" for key, value in defaults.items()) or "no argument"
            hint = did_you_mean(name, defaults)
            raise UserError(f"{path} takes {takes}, not {short_repr(entry)}{hint}")
        kind = type(defaults[name])
        truth = {"true": True, "1": True, "false": False, "0": False}
        try:
            values[name] = truth[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UserError(
                f"{path}: {name} must be of the type {kind.__name__}, not {short_repr(text)}"
            ) from None
    return values
