"""The question that a sweep asks: the title of its record, or what its sweep file says it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def question(folder: Path, sweep_file: str) -> str:
    """Returns the question in one line, empty if there is none.

    Args:
      folder: of a sweep or a record, whose README.md has it as its title.
      sweep_file: the file of the sweep, whose docstring begins with it; a record has a copy.
    """
    return readme_title(folder) or _docstring(folder, sweep_file)


def readme_title(folder: Path) -> str:
    """Returns the first heading of a folder's README.md, empty if there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    match = re.search(r"^# +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1].strip() if match else ""


def _docstring(folder: Path, sweep_file: str) -> str:
    if not sweep_file:
        return ""
    for path in (folder / Path(sweep_file).name, Path(sweep_file)):
        if path.is_file():
            try:
                text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, SyntaxError):
                return ""
            return " ".join((text or "").split("\n\n")[0].split())
    return ""
