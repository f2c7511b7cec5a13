"""What a run learns from and is measured on: a folder of token shards, or a mixture of several."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.config import Config
from gpt2_jax.data.documents import IsolatedDocuments
from gpt2_jax.data.loader import BatchSource, EvalWindows, TrainLoader
from gpt2_jax.data.meta import check_sha256, read_meta
from gpt2_jax.data.mixture import MixtureLoader
from gpt2_jax.data.shards import TokenArray, check_vocab, fingerprint, open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.evals.perplexity import MixturePerplexity, Perplexity
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.tokenizers.tokenizer import Tokenizer, make_tokenizer, tokenizer_from_dict


@dataclasses.dataclass(frozen=True)
class TokenSets:
    """The folders of a config, checked and opened.

    Attributes:
      tokenizer: of all of them.
      source: batches to train on.
      origins: batch number -> (folder, first token in its train split) of each row.
      val_tokens: folder -> its validation split.
      shares: of each folder in what is drawn.
      fingerprint: tells them from all others.
    """

    tokenizer: Tokenizer
    source: BatchSource
    origins: Callable[[int], list[tuple[str, int]]]
    val_tokens: dict[str, TokenArray]
    shares: list[int]
    fingerprint: str

    def make_perplexity(
        self, config: Config, mesh: Any, rules: Any, abstract_params: Any
    ) -> Perplexity | MixturePerplexity:
        """The validation of every set, compiled once."""
        perplexities: list[Perplexity] = []
        for tokens in self.val_tokens.values():
            first = perplexities[0] if perplexities else None
            perplexities.append(
                Perplexity(config, tokens, self.tokenizer, mesh, rules, abstract_params, first)
            )
        if len(perplexities) == 1:
            return perplexities[0]
        named = dict(zip(_short_names(list(self.val_tokens)), perplexities, strict=True))
        return MixturePerplexity(named, self.shares)


def open_sets(config: Config, *, check_sums: bool = False) -> TokenSets:
    """Opens the folders that the config names.

    Args:
      check_sums: reads every shard to compare its sha256 with meta.json's.

    Raises:
      UserError: for a folder that is missing, damaged, too small, or of another tokenizer than the
        config and the others; for one without sums where they are asked for.
    """
    shares = config.data.shares
    tokenizer = _tokenizer(config, list(shares))
    loaders = [_loader(config, path) for path in shares]
    drawn = loaders[0] if len(loaders) == 1 else MixtureLoader(loaders, list(shares.values()))
    source: BatchSource = drawn
    if config.data.isolate_documents:
        if tokenizer.eot is None:
            raise UserError(
                f"data.isolate_documents: the {tokenizer.name} tokenizer has no end of text to "
                "tell documents by; prepare with byte or gpt2"
            )
        source = IsolatedDocuments(drawn, tokenizer.eot)
    val_tokens = {path: _val_tokens(config, path) for path in shares}
    if check_sums:  # of files already opened: from here on, every read sees whether they change
        _check_sums(list(shares))
    return TokenSets(
        tokenizer=tokenizer,
        source=source,
        origins=drawn.origins,
        val_tokens=val_tokens,
        shares=list(shares.values()),
        fingerprint=fingerprint(*shares),
    )


def _loader(config: Config, path: str) -> TrainLoader:
    tokens = _tokens(config, path, "train")
    with _naming(path):
        return TrainLoader(
            tokens,
            batch_size=config.train.batch_size,
            context_length=config.model.context_length,
            seed=config.train.seed,
            folder=path,
        )


def _val_tokens(config: Config, path: str) -> TokenArray:
    tokens = _tokens(config, path, "val")
    with _naming(path):  # too few to be scored: known before anything is compiled
        EvalWindows(tokens, batch_size=1, context_length=config.model.context_length)
    return tokens


def _tokens(config: Config, path: str, split: str) -> TokenArray:
    found = open_tokens(path, split, val_fraction=config.data.val_fraction)
    with _naming(path):
        check_vocab(found, config.model.vocab_size)
    return found


def _check_sums(paths: Sequence[str]) -> None:
    metas = {path: meta for path in paths if (meta := read_meta(path)) is not None}
    if without := [path for path in paths if path not in metas]:
        raise UserError(
            f"--check_sha256: {without[0]} has no meta.json with sums to compare its shards with; "
            "leave the flag out, or make the shards with gpt2-jax prepare"
        )
    for path, meta in metas.items():
        if is_primary():
            print(f"comparing the sha256 of the shards in {path}", file=sys.stderr)
        check_sha256(path, meta)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Tells which folder it is whose tokens are refused in the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _tokenizer(config: Config, paths: Sequence[str]) -> Tokenizer:
    """The tokenizer of the shards in all folders, which must be the one the config names."""
    first, *more = [_tokenizer_of(config, path) for path in paths]
    for path, other in zip(paths[1:], more, strict=True):
        if other.to_dict() != first.to_dict():
            raise UserError(
                f"data.mixture: {path} and {paths[0]} have {first.name} tokenizers of different "
                "tokens: prepare both with --tokenizer byte or gpt2"
            )
    return first


def _short_names(paths: Sequence[str]) -> list[str]:
    """The folders' own names, or the whole paths where two have the same name."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _tokenizer_of(config: Config, path: str) -> Tokenizer:
    """The tokenizer of the shards, which must be the one the config names."""
    meta = read_meta(path) if Path(path).is_dir() else None
    if meta is None and config.data.tokenizer == "char":
        raise UserError(
            f"{path} has no meta.json to say which characters its tokens are: prepare the text "
            "with gpt2-jax prepare --tokenizer char, which gives nanoGPT's ids"
        )
    if meta is None:  # shards of other programs say nothing of their tokenizer
        tokenizer = make_tokenizer(config.data.tokenizer)
    else:
        tokenizer = tokenizer_from_dict(meta["tokenizer"])
        if tokenizer.name != config.data.tokenizer:
            raise UserError(
                f"data.tokenizer={config.data.tokenizer}, but {path} was prepared with "
                f"{tokenizer.name}: set --config.data.tokenizer={tokenizer.name} or prepare it anew"
            )
    if tokenizer.vocab_size != config.model.vocab_size:
        raise UserError(
            f"model.vocab_size={config.model.vocab_size}, but the tokenizer of {path} has "
            f"{tokenizer.vocab_size} tokens: set --config.model.vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer
