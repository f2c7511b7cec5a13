"""Running sweep files, which are Python programs, and reporting their errors."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from gpt2_jax.config.imports import as_config_file
from gpt2_jax.config.mistakes import explain, where
from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.files.paths import local_path
from gpt2_jax.sweeps.sweep import Sweep


def load_sweep(name: str | Path) -> Sweep:
    """Returns what the file's `get_sweep()` returns, with the file itself as an empty base.

    Raises:
      UserError: for a file that is missing or fails, with the line that its author can fix.
    """
    path = local_path(name, "--sweep")
    if path.is_dir() or (path.is_file() and path.suffix != ".py"):
        raise UserError(f"--sweep {path}: expected a Python file that defines get_sweep()")
    if not path.is_file():
        siblings = map(str, path.parent.glob("*.py")) if path.parent.is_dir() else ()
        hint = did_you_mean(str(path), siblings) or ": give its path from the current folder"
        raise UserError(f"no sweep file {path}{hint}")
    try:
        with as_config_file(Path(os.path.abspath(path))) as package:
            module = f"{package}.{path.stem}" if package else None
            sweep = _call_get_sweep(path, module)
    except KeyboardInterrupt:
        raise
    except UserError as error:
        raise UserError(f"{where(path, error)}: {error}") from error
    except BaseException as error:  # includes sys.exit(0), which would look like a finished sweep
        raise UserError(explain(path, error)) from error
    sweep.base = sweep.base or os.fspath(path)
    return sweep


def _call_get_sweep(path: Path, module: str | None) -> Sweep:
    namespace = runpy.run_path(str(path), run_name=module)
    if "get_sweep" not in namespace:
        hint = ": it is a config, for --config" if "get_config" in namespace else ""
        raise UserError(f"it defines no get_sweep(){hint}")
    sweep = namespace["get_sweep"]()
    if not isinstance(sweep, Sweep):
        raise UserError(f"get_sweep() must return a gpt2_jax.sweeps.Sweep, not {short_repr(sweep)}")
    return sweep
