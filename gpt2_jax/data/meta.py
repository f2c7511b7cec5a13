"""`meta.json`: what a folder of token shards holds, and with which tokenizer it was made."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError

META = "meta.json"
# A shard lies in the folder itself.
_FILE_NAME = re.compile(r"\w[\w.-]{0,250}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "remove the folder and prepare the data anew"


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """The folder's meta.json, None where there is none.

    Raises:
      UserError: when it is not JSON, or lacks what `write_meta` documents.
    """
    file = Path(path) / META
    try:
        meta = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # the last for "[[[[..."
        raise UserError(f"{file} cannot be read ({error}): {_REMEDY}") from None
    problem = _meta_problem(meta)
    if problem:
        raise UserError(f"{file} is malformed ({problem}): {_REMEDY}")
    return meta


def write_meta(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Writes meta.json in one step.

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
    temporary = file.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as out:
        json.dump(meta, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)


def check_sha256(path: str | Path, meta: Mapping[str, Any]) -> None:
    """Reads every shard that the meta lists and compares its sha256.

    Raises:
      UserError: naming the first that differs or can't be read.
    """
    for split in meta["splits"].values():
        for shard in split["shards"]:
            file = Path(path) / shard["file"]
            try:
                with open(file, "rb") as content:
                    found = hashlib.file_digest(content, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror}): {_REMEDY}") from None
            if found != shard["sha256"]:
                raise UserError(f"{file} is damaged, its sha256 is not {META}'s: {_REMEDY}")


def _missing(values: Any, kinds: Mapping[str, type]) -> str | None:
    """The first key that is absent or of another type, None when all are there."""
    for key, kind in kinds.items():
        if not isinstance(values, Mapping) or not isinstance(values.get(key), kind):
            return key
    return None


def _meta_problem(meta: Any) -> str | None:
    """What is wrong with a meta.json's content; None when nothing is."""
    if key := _missing(meta, {"tokenizer": dict, "vocab_size": int, "splits": dict}):
        return f"no {key}"
    # What `prepare` compares; other programs' folders may do without.
    source = meta.get("source", {})
    if not isinstance(source, Mapping) or not isinstance(part := source.get("part_bytes", 1), int):
        return "no part_bytes in source"
    if part < 1:
        return f"part_bytes is {part}"
    for name, split in meta["splits"].items():
        kinds = {"tokens": int, "bytes": int, "documents": int, "shards": list}
        if key := _missing(split, kinds):
            return f"no {key} in split {name!r:.40}"
        for shard in split["shards"]:
            if key := _missing(shard, {"file": str, "tokens": int, "sha256": str}):
                return f"no {key} in a shard of split {name!r:.40}"
            if not _FILE_NAME.fullmatch(shard["file"]):
                return f"{shard['file']!r:.40} is no shard's name"
            if not _SHA256.fullmatch(shard["sha256"]):
                return f"{shard['sha256']!r:.40} is no sha256"
    return None
