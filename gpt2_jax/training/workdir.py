"""The folder of a run: making it, and reading and writing the config in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote, resolve_path

_CONFIG = "config.json"


def read_run_config(workdir: str | Path) -> Config | None:
    """Returns the config of the run in a workdir, or None if there is no run.

    Raises:
      UserError: if config.json is not a config.
    """
    path = resolve_path(workdir) / _CONFIG
    if not path.exists():
        return None
    try:
        return config_lib.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UserError, *NOT_JSON, AttributeError) as error:
        raise UserError(
            f"{path} is not the config of a run ({error}): remove it, and resume writes it again"
        ) from error


def write_run_config(workdir: Path, config: Config) -> None:
    """Writes config.json, unless it already holds this config.

    Raises:
      OSError: if it cannot be written.
    """
    path = workdir / _CONFIG
    content = (json.dumps(config_lib.to_dict(config), indent=2) + "\n").encode()
    # Unchanged content is not written again, which would fail on a full disk.
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)


def make_workdir(workdir: Path) -> None:
    """Makes the folder if it is missing.

    Raises:
      UserError: if it cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        writable = is_remote(workdir) or os.access(workdir, os.W_OK)
    except OSError as error:
        raise UserError(f"cannot make --workdir {workdir}: {error.strerror}") from error
    if not writable:
        raise UserError(f"cannot write in --workdir {workdir}: permission denied")
