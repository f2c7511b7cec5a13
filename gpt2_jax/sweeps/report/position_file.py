"""The files in which validations write the loss at each position, and records the means of bins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.sweeps.report.position_bins import unbinned

LOSSES = "loss_by_position"
"""The file, without .json, and the name in it; followed by `_at_N` for windows of N tokens."""


def read_losses(run: Path, step: int) -> list[float | None]:
    """Returns the losses by position that a validation has written, of its longest windows.

    Args:
      run: the workdir.
      step: of the validation; what others have written does not count.

    Returns:
      The losses, None where no token was scored; empty if there are none.

    Raises:
      UserError: if a file is damaged.
    """
    found: list[float | None] = []
    paths = [run / f"{LOSSES}.json", *run.glob(f"{LOSSES}_at_*.json")]
    for path in (path for path in paths if path.exists()):
        found = max(found, _read(path, step), key=len)
    return found


def _read(path: Path, step: int) -> list[float | None]:
    problem = f"{path}: {LOSSES} must be a list of numbers: remove the file"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        losses, length = values[path.stem], values.get("length")
        if values["step"] != step:
            return []
        if not isinstance(losses, list) or not all(map(_is_loss, losses)):
            raise UserError(problem)
        # A record has the means of bins.
        return losses if length is None else unbinned(losses, int(length))
    except (*NOT_JSON, KeyError, TypeError, AttributeError) as error:
        raise UserError(problem) from error


def _is_loss(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
