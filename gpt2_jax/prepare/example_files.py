"""Examples in files of the user, which are tokenized once into a cache before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from gpt2_jax.config import Config, DataConfig
from gpt2_jax.config.fields import Fields, parse_fields
from gpt2_jax.data.examples import is_examples
from gpt2_jax.data.folders import list_folder
from gpt2_jax.data.meta import META, read_meta
from gpt2_jax.data.token_sets import TokenSets, open_sets
from gpt2_jax.errors import UserError
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.lock_owner import InUse
from gpt2_jax.files.paths import expand_home, is_remote, remove_tree, resolve_path
from gpt2_jax.prepare.examples import check_tokenizer, fixed_tokenizer, prepare_examples
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict

# Part of the keys of the cache: a new number makes every file be tokenized again.
_VERSION = 1
_CACHE = "GPT2_JAX_EXAMPLES"
_JSONL = re.compile(r".*\.jsonl(\.\w+)?")
# Names by which other programs call a validation split.
_MEANT_AS_VAL = frozenset({"valid.jsonl", "validation.jsonl", "dev.jsonl", "eval.jsonl"})
_POLL_SECONDS = 0.1


def example_files(name: str) -> dict[str, list[Path]] | None:
    """Returns the files of examples that a path stands for by split, or None if it is no such path.

    Args:
      name: a file `*.jsonl`, or a folder with train.jsonl and perhaps val.jsonl.

    Raises:
      UserError: for a file that does not exist or is in a bucket, or a folder of other files of
        JSON lines.
      StorageError: if a bucket cannot be reached.
    """
    folder = list_folder(name)
    if folder is None:
        if not _JSONL.fullmatch(name):
            return None
        _refuse_remote(name)
        path = resolve_path(name)
        if not path.exists():
            raise UserError(f"there is no file of examples {name}: name one, or a folder of tokens")
        return {"train": [path]}
    names = folder.names
    lines = [each for each in names if each.endswith(".jsonl")]
    if not lines or META in names or any(each.endswith(".bin") for each in names):
        return None
    _refuse_remote(name)
    if "train.jsonl" not in lines:
        raise UserError(
            f"{name} has no train.jsonl, but {lines[0]}: name the file itself, {name}/{lines[0]}, "
            "or rename it"
        )
    if "val.jsonl" not in lines and (others := _MEANT_AS_VAL & {*lines}):
        raise UserError(f"{name}: rename {min(others)} to val.jsonl, which validates")
    splits = [split for split in ("train", "val") if f"{split}.jsonl" in lines]
    return {split: [resolve_path(name) / f"{split}.jsonl"] for split in splits}


def _refuse_remote(name: str) -> None:
    if is_remote(name):
        raise UserError(
            f"{name}: examples in a bucket must be tokenized: run gpt2-jax prepare --format "
            "examples on a copy of the file, and copy the folder that it makes to the bucket"
        )


def uses_examples(config: Config) -> bool:
    """Returns whether a run trains on examples, as far as can be told without a bucket."""
    data = config.data
    if data.path is None and data.mixture is None:
        return False
    for path in data.weights:
        if _JSONL.fullmatch(path):
            return True
        if is_remote(path) or list_folder(path) is None:
            continue
        if example_files(path) is not None or is_examples(read_meta(path)):
            return True
    return False


def has_example_files(config: Config) -> bool:
    """Returns whether the data of a run has files that are to be tokenized."""
    if config.data.path is None and config.data.mixture is None:
        return False
    return any(
        example_files(path) is not None
        for path in config.data.weights
        if _JSONL.fullmatch(path) or not is_remote(path)
    )


def open_data(
    config: Config,
    *,
    tokenizer: Tokenizer | None = None,
    check_sums: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> TokenSets:
    """Opens the data that the config names, and tokenizes files of examples if they are new.

    Several processes may call it: one tokenizes, and the others of the same disk wait for it.

    Args:
      config: with its `model.vocab_size` set.
      tokenizer: the tokenizer of files of examples; by default that of token shards beside them,
        or the one that `data.tokenizer` names.
      check_sums: whether to read every shard and compare its sha256 with meta.json's.
      log: called with a line of progress.

    Raises:
      UserError: as `data.token_sets.open_sets` does, and for a line that is no example.
      StorageError: if a bucket cannot be reached, or a disk is full.
    """
    found = {path: files for path in config.data.weights if (files := example_files(path))}
    folders: dict[str, Path] = {}
    _check_fields(config, [path for path in config.data.weights if path not in found])
    if found:
        shards = [path for path in config.data.weights if path not in found]
        chosen = tokenizer or _tokenizer(config, next(iter(found)), shards)
        fields = parse_fields(config.data.fields)
        for path, files in found.items():
            folders[path] = _cached(path, files, fields, chosen, log)
    return open_sets(config, examples=folders, check_sums=check_sums, log=log)


def _check_fields(config: Config, prepared: list[str]) -> None:
    """Refuses fields that a folder of tokens was not made with, where they have no effect."""
    fields = config.data.fields
    if fields == DataConfig().fields:
        return
    for path in prepared:
        if is_examples(meta := read_meta(path)) and meta is not None:
            made_with = meta["source"]["fields"]
            if made_with != str(parse_fields(fields)):
                raise UserError(
                    f"data.fields={fields}, but {path} was prepared with {made_with}: leave "
                    "data.fields unset, or prepare it again with --fields"
                )
    if len(prepared) == len(config.data.weights) and not any(
        is_examples(read_meta(path)) for path in prepared
    ):
        raise UserError(
            f"data.fields={fields} has no effect, because {', '.join(prepared)} has no examples: "
            "unset it, or name a .jsonl file as data.path"
        )


def _tokenizer(config: Config, name: str, shards: list[str]) -> Tokenizer:
    """Returns the tokenizer of files of examples that come with none."""
    for path in shards:
        if (meta := read_meta(path)) is not None:
            return tokenizer_from_dict(meta["tokenizer"])
    return fixed_tokenizer(config.data.tokenizer, name)


def _cached(
    name: str,
    files: dict[str, list[Path]],
    fields: Fields,
    tokenizer: Tokenizer,
    log: Callable[[str], None],
) -> Path:
    """Returns the folder with the tokens of the files, which is made if it is missing."""
    check_tokenizer(tokenizer, name)
    sums = {split: _sha256(path) for split, (path,) in files.items()}
    key = [_VERSION, sums, list(fields), tokenizer.to_dict()]
    cache = Path(expand_home(os.environ.get(_CACHE) or "~/.cache/gpt2_jax/examples", _CACHE))
    folder = cache / hashlib.sha256(json.dumps(key).encode()).hexdigest()
    place = f"the tokens of {name} to {folder} (set {_CACHE} to another folder)"
    while not _is_complete(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with lock_folder(cache / f".{folder.name}.lock", name, activity="being tokenized"):
                if _is_complete(folder):
                    break
                remove_tree(folder)  # which is damaged, or not there
                log(f"tokenizing {name} into {folder}")
                prepare_examples(
                    files, fields, tokenizer, folder, name=name, place=place, val_fraction=0.0
                )
        except InUse:
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise UserError(f"cannot write {place}: {error.strerror}") from None
        finally:
            _remove_empty(cache / f".{folder.name}.lock")
    return folder


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # another process has locked it, or it was never made
        return


def _is_complete(folder: Path) -> bool:
    """Returns whether the folder is there, and not damaged."""
    try:
        return read_meta(folder) is not None
    except UserError:
        return False


def _sha256(path: Path) -> str:
    try:
        refuse_lfs_pointer(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
