"""`meta.json`, which says what a folder of token shards holds and how it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.data.folders import read_small_file, require_folder
from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.files.paths import resolve_path

META = "meta.json"
# A plain name, because shards are in the folder itself.
_FILE_NAME = re.compile(r"\w[\w.-]{0,250}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "remove the folder and prepare the data again"


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """Returns the content of the folder's meta.json, or None if there is none.

    Raises:
      UserError: if it is not JSON, or not what `write_meta` describes.
      StorageError: if a bucket cannot be reached.
    """
    file = resolve_path(path) / META
    try:
        content = read_small_file(file)
        if content is None:
            return None
        refuse_lfs_pointer(file, content)
        meta = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:  # the last for deeply nested lists
        raise UserError(f"{file} cannot be read ({error}): {_REMEDY}") from None
    problem = _meta_problem(meta)
    if problem:
        raise UserError(f"{file} is malformed ({problem}): {_REMEDY}")
    return meta


def write_meta(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Writes meta.json atomically.

    Args:
      path: the folder.
      meta: {"tokenizer": Tokenizer.to_dict(), "vocab_size": n, "splits": {"train": {"tokens",
        "bytes" (of text), "documents", "shards": [{"file", "tokens", "sha256"}]}, "val": ...}};
        more keys may be added.
    """
    problem = _meta_problem(meta)
    if problem:
        raise ValueError(f"malformed meta: {problem}")
    file = Path(path) / META
    write_file(file, json.dumps(meta, indent=1).encode())


def check_sha256(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Reads every shard that the meta lists and compares its sha256.

    Args:
      path: the folder.
      meta: the content of its meta.json.

    Raises:
      UserError: naming the first shard that is missing, differs or cannot be read.
      StorageError: if a bucket cannot be reached.
    """
    folder = require_folder(path)
    sums = {
        shard["file"]: shard["sha256"]
        for split in meta["splits"].values()
        for shard in split["shards"]
    }
    if missing := sorted(sums.keys() - {*folder.names}):
        raise UserError(f"{resolve_path(path) / missing[0]} is missing: {_REMEDY}")
    for shard in folder.open_shards(list(sums)):
        if shard.sha256() != sums[shard.path.name]:
            raise UserError(
                f"{shard.path} is damaged, because its sha256 is not that in {META}: {_REMEDY}"
            )


def _missing(values: Any, kinds: Mapping[str, type]) -> str | None:
    """Returns the first key that is missing or of another type, or None if there is none."""
    for key, kind in kinds.items():
        if not isinstance(values, Mapping) or not isinstance(values.get(key), kind):
            return key
    return None


def _meta_problem(meta: Any) -> str | None:
    """Returns what is wrong with the content of a meta.json, or None if it is valid."""
    if key := _missing(meta, {"tokenizer": dict, "vocab_size": int, "splits": dict}):
        return f"no {key}"
    # Needed only to recognize what `prepare` made: other programs' folders may have no source.
    source = meta.get("source", {})
    if not isinstance(source, Mapping) or not isinstance(size := source.get("part_bytes", 1), int):
        return "no part_bytes in source"
    if size < 1:
        return f"part_bytes is {size}, but must be at least 1"
    for name, split in meta["splits"].items():
        kinds = {"tokens": int, "bytes": int, "documents": int, "shards": list}
        if key := _missing(split, kinds):
            return f"no {key} in split {name!r:.40}"
        for shard in split["shards"]:
            if key := _missing(shard, {"file": str, "tokens": int, "sha256": str}):
                return f"no {key} in a shard of split {name!r:.40}"
            if not _FILE_NAME.fullmatch(shard["file"]):
                return f"{shard['file']!r:.40} is not a valid file name"
            if not _SHA256.fullmatch(shard["sha256"]):
                return f"{shard['sha256']!r:.40} is not a sha256"
    return None
