"""The data of a run: a folder of token shards, or a mixture of several, checked and opened."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpt2_jax.config import Config, with_vocab_size
from gpt2_jax.data.batch import BatchSource, Origin
from gpt2_jax.data.documents import IsolatedDocuments
from gpt2_jax.data.example_batches import ExampleLoader, Fitted, fit
from gpt2_jax.data.examples import (
    check_index_sums,
    is_examples,
    open_examples,
    overlap_warning,
)
from gpt2_jax.data.folders import list_folder, require_folder
from gpt2_jax.data.loader import EvalWindows, TrainLoader
from gpt2_jax.data.meta import check_sha256, read_meta
from gpt2_jax.data.mixture import MixtureLoader
from gpt2_jax.data.shards import TokenArray, check_vocab, fingerprint, open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.tokenizers.tokenizer import (
    FIXED_CHOICES,
    Tokenizer,
    make_tokenizer,
    tokenizer_from_dict,
)

# Written by nanoGPT's prepare.py for text that it divides into characters: their ids, as a pickle.
_NANOGPT_CHARACTERS = "meta.pkl"


@dataclasses.dataclass(frozen=True)
class TokenSets:
    """Holds the folders of a config, checked and opened.

    Attributes:
      tokenizer: the tokenizer of all of them.
      source: batches to train on.
      origins: batch number -> where each of its rows is from.
      val_tokens: folder -> its validation split: a stream of tokens, or examples.
      val_bytes: folder -> the bytes of text in that split, for folders whose meta.json says it.
      weights: how often each folder is drawn from.
      fingerprint: a hash that differs if the shards do.
    """

    tokenizer: Tokenizer
    source: BatchSource
    origins: Callable[[int], list[Origin]]
    val_tokens: dict[str, TokenArray | Fitted]
    val_bytes: dict[str, int]
    weights: list[int]
    fingerprint: str


def resolve_vocab_size(config: Config) -> Config:
    """Returns the config with `model.vocab_size` filled in if it is unset.

    It becomes that of the tokenizer of the data, or if there is no data yet, of `data.tokenizer`.

    Raises:
      UserError: if neither has a fixed vocabulary, or for folders of different tokenizers.
    """
    if config.model.vocab_size is not None:
        return config
    fixed = config.data.tokenizer in FIXED_CHOICES
    # Nothing is read from a bucket if the vocabulary is known without it, so that a run can be
    # planned on a machine that does not reach the bucket.
    paths = [path for path in _paths(config) if not (fixed and is_remote(path))]
    if paths := [path for path in paths if list_folder(path) is not None]:
        tokenizer = _tokenizer(config, {path: path for path in paths})
        return with_vocab_size(config, tokenizer.vocab_size)
    if not fixed:
        raise UserError(
            f"model.vocab_size is unset, and the vocabulary of data.tokenizer="
            f"{config.data.tokenizer} depends on the data, which does not exist yet: prepare the "
            "data, or set --config.model.vocab_size"
        )
    return with_vocab_size(config, make_tokenizer(config.data.tokenizer).vocab_size)


def _paths(config: Config) -> list[str]:
    named = config.data.path is not None or config.data.mixture is not None
    return list(config.data.weights) if named else []


def open_sets(
    config: Config,
    *,
    examples: Mapping[str, Path] | None = None,
    check_sums: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> TokenSets:
    """Opens the folders that the config names.

    Args:
      config: with its `model.vocab_size` set.
      examples: the folder of the tokens of each path that names files of examples.
      check_sums: whether to read every shard and compare its sha256 with meta.json's.
      log: called with a line of progress.

    Raises:
      UserError: for a folder that is missing, damaged, too small, or of another tokenizer than the
        config and the other folders; for one without checksums if they are to be compared.
      StorageError: if a bucket cannot be reached.
    """
    weights = config.data.weights
    # Path as the config names it -> the folder with its tokens.
    folders = {path: str((examples or {}).get(path, path)) for path in weights}
    tokenizer = _tokenizer(config, folders)
    _check_vocab_size(config, tokenizer, next(iter(weights)))
    opened = {path: _open(config, path, folder, tokenizer, log) for path, folder in folders.items()}
    loaders = [each.loader for each in opened.values()]
    isolate = config.data.isolate_documents
    if isolate and tokenizer.eot is None:
        raise UserError(
            f"data.isolate_documents: the {tokenizer.name} tokenizer has no end of text to "
            "separate documents by; prepare with byte or gpt2"
        )
    eot = tokenizer.eot if isolate else None
    drawn = loaders[0] if len(loaders) == 1 else MixtureLoader(loaders, list(weights.values()), eot)
    source: BatchSource = drawn
    if eot is not None and not drawn.segmented:
        source = IsolatedDocuments(drawn, eot)
    if check_sums:  # the files are already open, so that every later read notices a change
        _check_sums(folders, log)
    return TokenSets(
        tokenizer=tokenizer,
        source=source,
        origins=drawn.origins,
        val_tokens={path: each.val for path, each in opened.items()},
        val_bytes={path: each.val_bytes for path, each in opened.items() if each.val_bytes},
        weights=list(weights.values()),
        fingerprint=fingerprint(*folders.values()),
    )


class _Opened(NamedTuple):
    """Holds one folder of the data."""

    loader: TrainLoader | ExampleLoader
    val: TokenArray | Fitted
    val_bytes: int | None = None


def _open(
    config: Config, path: str, folder: str, tokenizer: Tokenizer, log: Callable[[str], None]
) -> _Opened:
    if is_examples(read_meta(folder)):
        return _Opened(*_open_examples(config, path, folder, tokenizer, log))
    return _Opened(_loader(config, path), _val_tokens(config, path), _val_bytes(path))


def _open_examples(
    config: Config, path: str, folder: str, tokenizer: Tokenizer, log: Callable[[str], None]
) -> tuple[ExampleLoader, Fitted]:
    """Returns the batches and the validation split of examples, and says what does not fit."""
    if config.eval.context_lengths:
        raise UserError(
            f"eval.context_lengths={config.eval.context_lengths}: {path} has examples, which are "
            "no windows of one stream and are validated whole: unset it (empty)"
        )
    if tokenizer.eot is None:
        raise UserError(f"{path}: the {tokenizer.name} tokenizer has no end of text")
    splits = open_examples(folder, path, val_fraction=config.data.val_fraction)
    train, val = (
        fit(each, config.model.context_length, f"{path}, {split} split")
        for split, each in zip(("train", "val"), splits, strict=True)
    )
    loader = ExampleLoader(
        train,
        batch_size=config.train.batch_size,
        seed=config.train.seeds.data,
        padding=tokenizer.eot,
        folder=path,
        prompt_weight=config.data.prompt_weight,
    )
    log(
        f"{path}: {_examples(len(train.numbers))} to train on, in about {loader.rows_per_epoch:,} "
        f"rows an epoch; {len(val.numbers):,} to validate on"
    )
    described = [each.describe(split) for split, each in (("train", train), ("val", val))]
    for line in filter(None, described):
        log(f"{path}: {line}")
    if warning := overlap_warning(path, *splits):
        log(warning)
    return loader, val


def _loader(config: Config, path: str) -> TrainLoader:
    tokens = _tokens(config, path, "train")
    with _naming(path):
        return TrainLoader(
            tokens,
            batch_size=config.train.batch_size,
            context_length=config.model.context_length,
            seed=config.train.seeds.data,
            folder=path,
        )


def _val_tokens(config: Config, path: str) -> TokenArray:
    tokens = _tokens(config, path, "val")
    with _naming(path):  # a split that is too short to score is refused before compiling
        EvalWindows(tokens, batch_size=1, context_length=config.model.context_length)
    return tokens


def _val_bytes(path: str) -> int | None:
    meta = read_meta(path)
    # Without a validation split of its own, a folder's is cut from its train split.
    return meta["splits"]["val"]["bytes"] if meta and "val" in meta["splits"] else None


def _tokens(config: Config, path: str, split: str) -> TokenArray:
    tokens = open_tokens(path, split, val_fraction=config.data.val_fraction)
    with _naming(path):
        check_vocab(tokens, config.model.vocab_size)
    return tokens


def _check_vocab_size(config: Config, tokenizer: Tokenizer, path: str) -> None:
    if tokenizer.vocab_size != config.model.vocab_size:
        raise UserError(
            f"model.vocab_size={config.model.vocab_size}, but the tokenizer of {path} has "
            f"{tokenizer.vocab_size} ids: set --config.model.vocab_size={tokenizer.vocab_size}, or "
            "leave it unset (none)"
        )


def _check_sums(folders: Mapping[str, str], log: Callable[[str], None]) -> None:
    metas = {path: meta for path, at in folders.items() if (meta := read_meta(at)) is not None}
    if without := [path for path in folders if path not in metas]:
        raise UserError(
            f"--check_sha256: {without[0]} has no meta.json with checksums of its shards; "
            "omit the flag, or make the shards with gpt2-jax prepare"
        )
    for path, meta in metas.items():
        log(f"comparing the sha256 of the shards in {path}")
        check_sha256(folders[path], meta)
        if is_examples(meta):
            check_index_sums(folders[path], meta)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Names the folder in errors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _tokenizer(config: Config, folders: Mapping[str, str]) -> Tokenizer:
    """Returns the tokenizer of all folders' shards, which must be the one the config names.

    Args:
      config: of the run.
      folders: path as the config names it -> the folder with its tokens.
    """
    name, *names = folders
    first, *more = [_tokenizer_of(config, folder) for folder in folders.values()]
    for path, other in zip(names, more, strict=True):
        if other.to_dict() != first.to_dict():
            raise UserError(
                f"data.mixture: {path} and {name} have {first.name} tokenizers of different "
                "tokens: prepare both with --tokenizer byte or gpt2"
            )
    return first


def _tokenizer_of(config: Config, path: str) -> Tokenizer:
    """Returns the tokenizer of the shards in a folder, which must be the one the config names."""
    resolve_path(path, "data.path" if config.data.mixture is None else "data.mixture:")
    folder = require_folder(path)
    meta = read_meta(path)
    if meta is None and _NANOGPT_CHARACTERS in folder.names:
        raise UserError(
            f"{path} has nanoGPT's {_NANOGPT_CHARACTERS}, so its tokens are characters; it is a "
            "pickle and not read, because it could run any program: prepare the text with gpt2-jax "
            "prepare --tokenizer char, which gives nanoGPT's ids, or remove it if it is of other "
            "data"
        )
    if meta is None and config.data.tokenizer == "char":
        raise UserError(
            f"{path} has no meta.json, so its characters are unknown: prepare the text "
            "with gpt2-jax prepare --tokenizer char, which gives nanoGPT's ids"
        )
    if meta is None and config.data.tokenizer not in FIXED_CHOICES:
        raise UserError(
            f"{path} has no meta.json, which stores the vocabulary that data.tokenizer="
            f"{config.data.tokenizer} needs: prepare the text with gpt2-jax prepare --tokenizer M, "
            "the model that has the tokenizer, or name the folder with its meta.json"
        )
    if meta is None:  # shards of other programs do not name their tokenizer
        return make_tokenizer(config.data.tokenizer)
    tokenizer = tokenizer_from_dict(meta["tokenizer"])
    if tokenizer.name != config.data.tokenizer and config.train.init_model:
        raise UserError(
            f"{path} was prepared with the tokenizer {tokenizer.name}, but that of train.init_from="
            f"{config.train.init_from} is {config.data.tokenizer}: prepare it with --tokenizer "
            f"{config.train.init_from}"
        )
    if tokenizer.name != config.data.tokenizer:
        raise UserError(
            f"data.tokenizer={config.data.tokenizer}, but {path} was prepared with "
            f"{tokenizer.name}: set --config.data.tokenizer={tokenizer.name} or prepare it again"
        )
    return tokenizer


def _examples(count: int) -> str:
    return f"{count:,} example{'' if count == 1 else 's'}"
