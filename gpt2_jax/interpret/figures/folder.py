"""Writes figures and their numbers into a folder, which it may do again but shares with no one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file

_INDEX = "numbers.json"
_ARRAYS = "numbers.npz"
_MAKER = "gpt2-jax inspect"


def refuse_other_folder(out: Path) -> None:
    """Raises UserError if a folder holds anything that `write` has not written."""
    if not out.is_dir():
        return
    known = _written_before(out)
    for path in sorted(out.iterdir()):
        unfinished = path.name.endswith(".tmp") and any(map(path.name.startswith, known))
        if path.name not in known and not unfinished:
            raise UserError(
                f"--out {out} holds something else ({path.name}): name a folder that is new, empty "
                f"or of an earlier {_MAKER}"
            )


def write(
    out: Path,
    contents: Mapping[str, bytes],
    arrays: Mapping[str, np.ndarray],
    index: Mapping[str, Any],
) -> list[Path]:
    """Writes files, arrays and their index, and returns the paths.

    What an earlier call has written and this one does not is removed.

    Args:
      out: a folder that `refuse_other_folder` lets pass; made if it is missing.
      contents: {name: content} of the files.
      arrays: {address: array}, which become numbers.npz.
      index: what numbers.json says beside the names of the files.

    Raises:
      OSError: if a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [_INDEX, _ARRAYS, *contents]
    before = _written_before(out)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
    # The index is first, so that after a kill every file is known as one of these.
    listed = {"made_by": _MAKER, "files": sorted({*names, *before}), **index}
    write_file(out / _INDEX, _json(listed))
    for name, content in {_ARRAYS: buffer.getvalue(), **contents}.items():
        write_file(out / name, content)
    for path in out.iterdir():
        if path.name not in names:
            path.unlink()
    write_file(out / _INDEX, _json({**listed, "files": sorted(names)}))
    return [out / name for name in names]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _written_before(out: Path) -> set[str]:
    """Returns the names of the files that an earlier call has written into a folder."""
    try:
        index = json.loads((out / _INDEX).read_bytes())
        return set(index["files"]) if index["made_by"] == _MAKER else set()
    except (OSError, ValueError, TypeError, KeyError):
        return set()
