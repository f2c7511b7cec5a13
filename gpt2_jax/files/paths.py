"""Paths of runs and models, on a disk or in a bucket of Google Cloud Storage."""

from __future__ import annotations

import os
import posixpath
import shutil
from pathlib import Path
from typing import cast

from gpt2_jax.errors import UserError
from gpt2_jax.files.extras import import_extra


def expand_home(name: str, flag: str = "") -> str:
    """Returns a path with the home folder in place of a `~` or a `~user` at its start.

    A shell does so itself only at the start of a word, and not in `--out=~/data`.

    Args:
      name: a path.
      flag: the flag or the knob that the user gave the path with, which begins an error message.

    Raises:
      UserError: if there is no such user.
    """
    if not name.startswith("~"):
        return name
    expanded = os.path.expanduser(name)
    if expanded.startswith("~"):
        user = name[1:].partition("/")[0]
        problem = f"there is no user {user}" if user else "this user has no home folder"
        hint = f"for a folder whose name begins with ~, write ./{name}"
        raise UserError(f"{flag} {name}: {problem}; {hint}".strip())
    return expanded


def normal_folder(name: str, flag: str = "") -> str:
    """Returns the name of a folder without superfluous slashes and dots, `~` expanded.

    The arguments and errors are those of `expand_home`.
    """
    scheme, separator, rest = name.partition("://")
    if not separator:
        return posixpath.normpath(expand_home(name, flag))
    return f"{scheme}://{posixpath.normpath(rest).lstrip('/')}" if rest else name


def resolve_path(name: str | os.PathLike[str], flag: str = "") -> Path:
    """Returns the path with this name, which behaves like a `pathlib.Path` for `gs://` too.

    Args:
      name: a path on a disk, which may begin with `~`, or `gs://BUCKET/FOLDER`.
      flag: the flag that the user gave the name with, which begins an error message.

    Raises:
      UserError: for `gs://` without a bucket or without the extra that reaches buckets, for any
        other scheme, and for the home folder of a user who does not exist.
    """
    scheme, separator, rest = os.fspath(name).partition("://")
    if not separator:
        return Path(expand_home(os.fspath(name), flag))
    described = f"{flag} {os.fspath(name)}".strip()
    if scheme != "gs":
        raise UserError(f"{described} must be a folder on a disk, or gs://BUCKET/FOLDER")
    if not rest or rest.startswith("/"):
        raise UserError(f"{described} names no bucket: write gs://BUCKET/FOLDER")
    import_extra("gcsfs", extra="gcs", needed_by=described)
    # Imported for buckets only: etils takes longer to import than a typo should take to answer.
    from etils import epath

    return cast(Path, epath.Path(name))


def local_path(name: str | os.PathLike[str], flag: str) -> Path:
    """Returns the path with this name, which must be on a disk.

    Args:
      name: a path, which may begin with `~`.
      flag: the flag that the user gave the name with, which begins an error message.

    Raises:
      UserError: for `gs://` and any other scheme, and for the home folder of a user who does not
        exist.
    """
    if "://" in os.fspath(name):
        raise UserError(
            f"{flag} {os.fspath(name)} must be on a disk: copy from a bucket or to it, for example "
            "with gcloud storage cp -r"
        )
    return Path(expand_home(os.fspath(name), flag))


def replaceable_folder(folder: Path, flag: str) -> Path:
    """Returns where a finished folder can be moved to take this place; links are followed.

    Args:
      folder: a folder on a disk that is empty or does not exist.
      flag: the flag that the user gave its name with, which begins an error message.

    Raises:
      UserError: if no folder can be moved there.
    """
    place = Path(os.path.realpath(folder))
    if place.is_symlink():
        raise UserError(f"{flag} {folder} is a link that leads back to itself: name another folder")
    if os.path.ismount(place):
        raise UserError(f"{flag} {folder} is where a disk is mounted: name a folder inside of it")
    if place == Path(os.path.realpath(os.curdir)):
        raise UserError(f"{flag} {folder} is the current folder: name another")
    return place


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in a bucket, where objects are written whole and have no mode."""
    return os.fspath(path).startswith("gs://")


def remove_tree(folder: Path) -> None:
    """Removes a folder and everything in it, if it exists."""
    if is_remote(folder):
        from etils import epath

        epath.Path(folder).rmtree(missing_ok=True)
    elif folder.exists():
        shutil.rmtree(folder)
