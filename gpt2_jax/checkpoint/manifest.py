"""What the files of a checkpoint must be, so that only what was saved is ever restored.

Orbax keeps no sum of an array's bytes: a flipped bit would come back as another number without a
word. So a manifest of every file is written into a step's folder before the step is committed: a
committed step has one, and a step that fails against it is damaged.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON
from gpt2_jax.files.storage import is_remote, write_whole

NAME = "manifest.json"
# What Orbax still writes after the manifest, as it commits; no array depends on these.
_WRITTEN_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")

_DAMAGE = (errno.EIO, errno.EISDIR, errno.ENOTDIR)  # other errors are of the moment


def write_manifest(folder: Path, step: int) -> None:
    """Writes the manifest of a step into its folder, in which all else is written by now.

    Raises:
      OSError: if a file can't be read back, or the manifest not be written.
    """
    content = {"step": step, "files": _found(folder, _names(folder))}
    write_whole(folder / NAME, json.dumps(content, indent=1).encode())


def find_damage(
    folder: Path, items: Collection[str] | None = None, part: tuple[int, int] = (0, 1)
) -> str | None:
    """What is wrong with a step's files: the first that is not as its manifest says, or None.

    Args:
      folder: named by the step's number.
      items: the top folders to look at; None for all.
      part: (i, n) looks at every n-th file from the i-th on, so that n processes share the work.

    Raises:
      OSError: if a file is there and can't be read, but for a sector of the disk that is bad: that
        says nothing of what is in it, and the next time it may be.
    """
    try:
        manifest = json.loads((folder / NAME).read_bytes())
        expected = {name: dict(entry) for name, entry in manifest["files"].items()}
        step = manifest["step"]
    except FileNotFoundError:
        return f"no {NAME}: it is no checkpoint, or one of an earlier version"
    except OSError as error:
        return _unreadable(error, folder)
    except (*NOT_JSON, TypeError, KeyError, AttributeError):
        return f"{NAME} is no manifest"
    if str(step) != folder.name:
        return f"it is a copy of step {step}"
    there = {name.partition("/")[0] for name in expected}
    items = there if items is None else set(items)
    if missing := items - there:
        return f"no {sorted(missing)[0]} in {NAME}"
    names = sorted(name for name in expected if name.partition("/")[0] in items)
    names = names[part[0] :: part[1]]
    try:
        found = _found(folder, names)
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except OSError as error:
        return _unreadable(error, folder)
    for name in names:
        if name not in found:
            return f"{name} is missing"
        # Of a copy between a bucket and a disk, whose sums differ, the sizes are all there is.
        for key in expected[name].keys() & found[name].keys():
            if (now := found[name][key]) != (value := expected[name][key]):
                return f"{name} has {key} {_short(now)}, not {_short(value)}"
    return None


def _unreadable(error: OSError, folder: Path) -> str:
    """What is wrong with the file, if it is the file that is wrong; else raises the error."""
    if error.errno not in _DAMAGE or error.filename is None:
        raise error
    return f"{Path(error.filename).relative_to(folder)} can't be read: {error.strerror}"


def _names(folder: Path) -> list[str]:
    """What is listed of a step's folder."""
    if is_remote(folder):
        return []
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if name not in (*_WRITTEN_LATER, NAME)]


def _found(folder: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """{name: its size and sum} of the named files of a folder."""
    if is_remote(folder):
        return _found_in_bucket(folder)
    # sha256 lets go of Python's lock, and most of the bytes are in a few large files.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        described = pool.map(lambda name: _described(folder / name), names)
        return dict(zip(names, described, strict=True))


def _described(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _found_in_bucket(folder: Path) -> dict[str, dict[str, Any]]:
    """As the bucket lists its objects, of all of the folder: nothing is downloaded."""
    import gcsfs  # pyright: ignore[reportMissingImports]

    root = os.fspath(folder).removeprefix("gs://").rstrip("/") + "/"
    # A listing that gcsfs remembers would be of the time before Orbax wrote.
    bucket = gcsfs.GCSFileSystem(use_listings_cache=False)
    objects = dict(bucket.find(root, detail=True))
    found = {
        name.removeprefix(root): {"size": int(entry["size"]), "crc32c": entry["crc32c"]}
        for name, entry in objects.items()
    }
    return {name: entry for name, entry in found.items() if name not in (*_WRITTEN_LATER, NAME)}


def _short(value: Any) -> str:
    return str(value)[:12]
