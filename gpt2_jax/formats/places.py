"""Where a model of our own format is: in the folder of a step, or at a step that a place names.

`RUN/checkpoints/best` and `RUN/checkpoints/newest` are such places. There are no folders of these
names: a link would be wrong between the removal of a step and the change of the link, and a bucket
has no links.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote
from gpt2_jax.formats.pickles import NANOGPT_DOCS

NEWEST, BEST = "newest", "best"
_CHECKPOINTS = "checkpoints"
# Files and folders that only the workdir of a run has.
_RUN_FILES = (_CHECKPOINTS, "saved_step", "metrics.jsonl")


class Place(NamedTuple):
    """Says where a step is.

    Attributes:
      directory: the folder of checkpoints.
      step: the step, or `NEWEST` or `BEST`, which a trainer may change at any time.
    """

    directory: Path
    step: int | str


def is_place(path: Path) -> bool:
    """Returns whether a path names the best or the newest step of a folder of checkpoints."""
    path = _absolute(path)
    is_name = path.name in (NEWEST, BEST) and path.parent.name == _CHECKPOINTS
    return is_name and path.parent.is_dir() and not path.exists()


def _absolute(path: Path) -> Path:
    return path if is_remote(path) else path.absolute()


def locate(path: Path) -> Place:
    """Returns where the model of our own format is that a path means.

    Args:
      path: a run's workdir or its folder of checkpoints, of which the newest step is meant, the
        folder of a step, or a place; see the top of this file.

    Raises:
      UserError: for any other path.
    """
    if is_place(path):
        return Place(_absolute(path).parent, path.name)
    folder = path if is_remote(path) else path.resolve()  # the name of "." is empty
    if any((folder / name).exists() for name in _RUN_FILES):
        return Place(folder / _CHECKPOINTS, NEWEST)
    if folder.name.isdigit() and (folder / "params").is_dir():
        return Place(folder.parent, int(folder.name))
    if folder.name == _CHECKPOINTS:
        return Place(folder, NEWEST)
    if folder.suffix in (".pt", ".pth", ".bin"):
        raise UserError(
            f"{path} is a file, but a model is a folder; for nanoGPT's ckpt.pt see {NANOGPT_DOCS}"
        )
    raise UserError(
        f"{path} is not a model: a run's workdir has a checkpoints/ folder, a step's folder is "
        "named by its number, Hugging Face's has a config.json, and OpenAI's has an hparams.json"
    )
