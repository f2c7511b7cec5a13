"""The folder of a run: making it, and reading and writing the config in it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import NOT_JSON, UserError, print_stderr, shortened
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.formats.load import is_foreign
from gpt2_jax.parallel.distributed import is_primary

_CONFIG = "config.json"
# What may be in a folder before the run in it has saved its config.
_RUN_FILES = frozenset({"checkpoints", "lock", "saved_step", "metrics.jsonl"})


def read_run_config(workdir: str | Path) -> Config | None:
    """Returns the config of the run in a workdir, or None if there is no run.

    Raises:
      UserError: if config.json is not a config, or the folder holds a model of another program.
    """
    folder = resolve_path(workdir)
    path = folder / _CONFIG
    if path.exists():
        try:
            return config_lib.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (UserError, *NOT_JSON, AttributeError) as error:
            _refuse_foreign(folder)
            raise UserError(
                f"{path} is not the config of a run ({error}): move it away, and resume writes it "
                "again; or choose another --workdir"
            ) from error
    if folder.is_dir():
        _refuse_foreign(folder)
    return None


def _refuse_foreign(folder: Path) -> None:
    """Raises UserError if the folder holds a model of another program, which a run would damage."""
    if is_foreign(folder):
        raise UserError(
            f"--workdir {folder} holds a model of another program, and no run: to train the model, "
            f"start a run in another --workdir with --config.train.init_from={folder}"
        )


def note_other_files(folder: Path) -> None:
    """Says what else is in the folder of a new run, which may have been named by mistake."""
    if not folder.is_dir():
        return
    names: list[str] = []
    with contextlib.suppress(OSError):  # a folder that cannot be read is refused later
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if is_primary() and names and not _RUN_FILES & {*names}:
        print_stderr(
            f"note: --workdir {folder} has other files than a run's, which stay: "
            f"{shortened(', '.join(names), 100)}"
        )


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
    """Makes the folder, or the one that a link of its name leads to, if it is missing.

    Raises:
      UserError: if it cannot be made or written to.
    """
    place = workdir
    # No methods of the path, because those in a bucket do not have them.
    if os.path.islink(workdir) and not os.path.exists(workdir):
        place = Path(os.path.realpath(workdir))
        if os.path.islink(place):
            raise UserError(
                f"--workdir {workdir} is a link that leads back to itself: name another folder"
            )
    try:
        place.mkdir(parents=True, exist_ok=True)
        writable = is_remote(workdir) or os.access(workdir, os.W_OK)
    except OSError as error:
        raise UserError(f"cannot make --workdir {workdir}: {error.strerror}") from error
    if not writable:
        raise UserError(f"cannot write in --workdir {workdir}: permission denied")
