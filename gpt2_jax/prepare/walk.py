"""The files of a folder and those that a pattern matches, found by the same rule.

Links to files and folders are followed, and each folder is entered once, so that links that lead in
a circle end. A link that leads nowhere is an error, because it may stand for a text or a folder of
texts; with a pattern it is counted in a note if its name does not match. What is hidden, which
means that its name begins with a dot, is left out, unless it is named: `.cache/a.txt` or
`.*/*.txt`.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.errors import UserError, print_stderr, shortened

_ANY_FOLDERS = "**"


def folder_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Returns the files with these suffixes in a folder and all folders below it, sorted.

    Raises:
      UserError: if a folder cannot be read, a link leads nowhere, or what has such a suffix is
        neither a file nor a folder.
    """
    dead: set[Path] = set()
    named = [
        path
        for each in _folders(folder, dead)
        for path in _visible(each)
        if path.name.lower().endswith(suffixes)
    ]
    for path in sorted(dead):
        refuse_unreadable(path)
    return sorted(filter(_is_file, named), key=Path.as_posix)


def matching_files(pattern: str) -> list[Path]:
    """Returns the files that a pattern matches, sorted; `**` stands for any folders, or none.

    Raises:
      UserError: if a folder that `**` stands for cannot be read, a matching link leads nowhere, or
        what matches is neither a file nor a folder.
    """
    parts = pattern.split("/")
    if parts[-1] == _ANY_FOLDERS:
        parts.append("*")
    dead: set[Path] = set()
    files = sorted(filter(_is_file, set(_matches("", parts, dead))), key=Path.as_posix)
    if dead:
        names = shortened(", ".join(map(str, sorted(dead))), 100)
        links = "link that leads" if len(dead) == 1 else "links that lead"
        print_stderr(
            f"note: --input {pattern} does not match {len(dead):,} {links} nowhere, instead of "
            f"which there may have been folders of files that do: {names}"
        )
    return files


def refuse_unreadable(path: Path, flag: str = "") -> None:
    """Raises UserError if a path is a link that leads nowhere, or is neither a file nor a folder.

    Args:
      path: what may be missing altogether.
      flag: what begins the message.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            problem = "is a link that leads back to itself: remove it, or link its file again"
        elif path.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR):
            problem = "is a link that leads nowhere: remove it, or restore its file"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return
        else:
            problem = f"cannot be read: {error.strerror}"
        raise UserError(f"{flag}{path} {problem}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(
            f"{flag}{path} is not a regular file: copy what it gives to a file, and name that"
        )


def _is_file(path: Path) -> bool:
    """Returns whether a path is a regular file, or a link to one.

    Raises:
      UserError: if it is a link that leads nowhere, or neither a file nor a folder.
    """
    refuse_unreadable(path)
    return path.is_file()


def _matches(prefix: str, parts: list[str], dead: set[Path]) -> Iterator[Path]:
    """Yields what the parts of a pattern match in the folder whose name, escaped, is the prefix.

    Adds the links that lead nowhere to `dead`, from all folders that `**` stands for.
    """
    if _ANY_FOLDERS not in parts:
        for i in range(1, len(parts)):
            if glob.has_magic(parts[i - 1]):  # a dead link may stand for a folder of matching files
                for path in glob.iglob(prefix + "/".join(parts[:i])):
                    refuse_unreadable(Path(path))
        yield from map(Path, glob.iglob(prefix + "/".join(parts)))
        return
    at = parts.index(_ANY_FOLDERS)
    before = prefix + "".join(f"{part}/" for part in parts[:at])
    for start in glob.iglob(before) if before else [""]:
        if not os.path.isdir(start or "."):
            continue
        for folder in _folders(Path(start), dead):
            name = "" if folder == Path() else f"{glob.escape(str(folder).rstrip('/'))}/"
            yield from _matches(name, parts[at + 1 :], dead)


def _folders(top: Path, dead: set[Path]) -> Iterator[Path]:
    """Yields a folder and all visible ones below it, each once, however many links lead there.

    Adds the visible links in them that lead nowhere to `dead`.
    """
    waiting, entered = [top], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop(0)
        found = folder.stat()
        if (found.st_dev, found.st_ino) in entered:
            continue
        entered.add((found.st_dev, found.st_ino))
        yield folder
        for path in _visible(folder):
            if path.is_dir():
                waiting.append(path)
            elif path.is_symlink() and not path.exists():
                dead.add(path)


def _visible(folder: Path) -> list[Path]:
    """Returns what is directly in a folder and not hidden, sorted."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from None
    return [folder / name for name in names if not name.startswith(".")]
