"""The manifest of a checkpoint: sizes and checksums, so that only what was saved is restored.

Orbax keeps no checksum of an array's bytes, so that a flipped bit would silently change a number.
Therefore a manifest of all files is written into a step's folder before the step is committed.
Every committed step has one, and a step whose files differ from it is damaged.
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

from gpt2_jax.checkpoint.items import AVERAGE, REST
from gpt2_jax.errors import NOT_JSON
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote

NAME = "manifest.json"
# Files that Orbax writes after the manifest, as it commits; no array depends on them.
_WRITTEN_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")

_DAMAGE = (errno.EIO, errno.EISDIR, errno.ENOTDIR)  # other errors may be gone the next time


def write_manifest(folder: Path, step: int) -> None:
    """Writes the manifest of a step into its folder, after all other files.

    Raises:
      OSError: if a file cannot be read back, or the manifest cannot be written.
    """
    content = {"step": step, "files": _describe(folder, _file_names(folder))}
    write_file(folder / NAME, json.dumps(content, indent=1).encode())


MODEL_ALONE = "a model without the state of a run"
"""What `find_damage` returns for a step as `gpt2-jax convert` writes it, if a run is to resume."""

NO_AVERAGE = (
    "no average of the parameters was kept, because the run has optimizer.ema_decay=0 or its model "
    "was converted: use the parameters themselves, without --ema"
)
"""What `find_damage` returns for a step without the item `ema`, if that is needed."""


def find_damage(
    folder: Path,
    items: Collection[str] | None = None,
    every: tuple[int, int] = (0, 1),
    optional: Collection[str] = (),
) -> str | None:
    """Returns the first difference between a step's files and its manifest, or None.

    Args:
      folder: the folder of the step, named by its number.
      items: the folders in it to check; None checks all.
      every: (i, n) checks every n-th file from the i-th on, so that n processes share the work.
      optional: further folders to check if the manifest lists them.

    Raises:
      OSError: if a file exists and cannot be read for a reason other than a bad sector. It may be
        readable the next time, and nothing is known about its content.
    """
    try:
        manifest = json.loads((folder / NAME).read_bytes())
        expected = {name: dict(entry) for name, entry in manifest["files"].items()}
        step = manifest["step"]
    except FileNotFoundError:
        return f"no {NAME}: it is not a checkpoint, or one of an earlier version"
    except OSError as error:
        return _unreadable(error, folder)
    except (*NOT_JSON, TypeError, KeyError, AttributeError):
        return f"{NAME} is not a manifest"
    if str(step) != folder.name:
        return f"it is a copy of step {step}"
    listed_items = {name.partition("/")[0] for name in expected}
    items = listed_items if items is None else set(items)
    if missing := items - listed_items:
        if missing == {REST}:
            return MODEL_ALONE
        if missing == {AVERAGE}:
            return NO_AVERAGE
        return f"no {sorted(missing)[0]} in {NAME}"
    items |= listed_items & set(optional)
    names = sorted(name for name in expected if name.partition("/")[0] in items)
    names = names[every[0] :: every[1]]
    try:
        actual = _describe(folder, names)
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except OSError as error:
        return _unreadable(error, folder)
    for name in names:
        if name not in actual:
            return f"{name} is missing"
        # A bucket and a disk have different checksums: of a copy between them, sizes are compared.
        for key in expected[name].keys() & actual[name].keys():
            if (value := actual[name][key]) != (saved := expected[name][key]):
                return f"{name} has {key} {_short(value)}, not {_short(saved)}"
    return None


def _unreadable(error: OSError, folder: Path) -> str:
    """Returns the problem if the error means damage, and raises the error otherwise."""
    if error.errno not in _DAMAGE or error.filename is None:
        raise error
    return f"{Path(error.filename).relative_to(folder)} cannot be read: {error.strerror}"


def _file_names(folder: Path) -> list[str]:
    """Returns the names of the files that a manifest lists, relative to the folder."""
    if is_remote(folder):
        return []  # `_describe` lists a bucket itself
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if name not in (*_WRITTEN_LATER, NAME)]


def _describe(folder: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Returns {name: size and checksum} of the named files in a folder."""
    if is_remote(folder):
        return _describe_bucket(folder)
    # Threads work in parallel, because sha256 releases Python's global lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        described = pool.map(lambda name: _describe_file(folder / name), names)
        return dict(zip(names, described, strict=True))


def _describe_file(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _describe_bucket(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns {name: size and checksum} of all objects of a folder, without downloading them."""
    import gcsfs  # pyright: ignore[reportMissingImports]

    root = os.fspath(folder).removeprefix("gs://").rstrip("/") + "/"
    # A cached listing of gcsfs may be older than the files that Orbax wrote.
    bucket = gcsfs.GCSFileSystem(use_listings_cache=False)
    objects = dict(bucket.find(root, detail=True))
    described = {
        name.removeprefix(root): {"size": int(entry["size"]), "crc32c": entry["crc32c"]}
        for name, entry in objects.items()
    }
    return {name: entry for name, entry in described.items() if name not in (*_WRITTEN_LATER, NAME)}


def _short(value: Any) -> str:
    return str(value)[:12]
