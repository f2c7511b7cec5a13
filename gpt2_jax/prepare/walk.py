"""The files of a folder and those that a pattern matches, found by the same rule.

Links to files and folders are followed, and each folder is entered once, so that links that lead in
a circle end. What is hidden, which means that its name begins with a dot, is left out, unless it is
named: `.cache/a.txt` or `.*/*.txt`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.errors import UserError

_ANY_FOLDERS = "**"


def folder_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Returns the files with these suffixes in a folder and all folders below it, sorted.

    Raises:
      UserError: if a folder cannot be read, or a link leads nowhere.
    """
    named = [
        path
        for each in _folders(folder)
        for path in _visible(each)
        if path.name.lower().endswith(suffixes)
    ]
    return sorted(filter(_is_file, named), key=Path.as_posix)


def matching_files(pattern: str) -> list[Path]:
    """Returns the files that a pattern matches, sorted; `**` stands for any folders, or none.

    Raises:
      UserError: if a folder that `**` stands for cannot be read, or a matching link leads nowhere.
    """
    parts = pattern.split("/")
    if parts[-1] == _ANY_FOLDERS:
        parts.append("*")
    return sorted(filter(_is_file, set(_matches("", parts))), key=Path.as_posix)


def _is_file(path: Path) -> bool:
    """Returns whether a path is a regular file, or a link to one.

    Raises:
      UserError: if it is a link that leads nowhere.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link that leads nowhere: remove it, or restore its file")
    return path.is_file()


def _matches(prefix: str, parts: list[str]) -> Iterator[Path]:
    """Yields what the parts of a pattern match in the folder whose name, escaped, is the prefix."""
    if _ANY_FOLDERS not in parts:
        yield from map(Path, glob.iglob(prefix + "/".join(parts)))
        return
    at = parts.index(_ANY_FOLDERS)
    before = prefix + "".join(f"{part}/" for part in parts[:at])
    for start in glob.iglob(before) if before else [""]:
        if not os.path.isdir(start or "."):
            continue
        for folder in _folders(Path(start)):
            name = "" if folder == Path() else f"{glob.escape(str(folder).rstrip('/'))}/"
            yield from _matches(name, parts[at + 1 :])


def _folders(top: Path) -> Iterator[Path]:
    """Yields a folder and all visible ones below it, each once, however many links lead there."""
    waiting, entered = [top], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop(0)
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in entered:
            continue
        entered.add((stat.st_dev, stat.st_ino))
        yield folder
        waiting += [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    """Returns what is directly in a folder and not hidden, sorted."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from None
    return [folder / name for name in names if not name.startswith(".")]
