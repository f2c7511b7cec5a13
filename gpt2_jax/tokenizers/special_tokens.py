"""The files beside a tokenizer in Hugging Face's folders that add or name special tokens.

They are added_tokens.json, special_tokens_map.json and tokenizer_config.json. A setting that
changes what a text is encoded to is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.errors import NOT_JSON, UserError, short_repr
from gpt2_jax.tokenizers.base import Tokenizer, UnsupportedTokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary

GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
"""Names in tokenizer_config.json of GPT-2's own kind of tokenizer."""
# These read tokenizer.json as it is, or are GPT-2's encoding under another name.
_CLASSES = (
    *GPT2_CLASSES,
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
    "CodeGenTokenizer",
    "CodeGenTokenizerFast",
)
# Settings of tokenizer_config.json that add tokens to a text.
_ADDING = ("add_prefix_space", "add_bos_token", "add_eos_token")
# Entries of the files that name special tokens: one each, and the last two several.
_NAMING = (
    *("eos_token", "bos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"),
    *("additional_special_tokens", "extra_special_tokens"),
)


class SpecialTokens(NamedTuple):
    """Holds what the files say, with tokens in plain text."""

    tokenizer_class: str | None
    eos: str | None
    """The token that ends a text, or None if no file names one."""
    named: frozenset[str]
    """The tokens that are special."""
    added: dict[str, int]
    """The ids of tokens outside the encoding."""


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Reads the three files, of which each may be missing.

    Raises:
      UnsupportedTokenizer: for a setting that changes what texts are encoded to.
      UserError: if a file is malformed, or two files disagree.
    """
    settings = read_object(folder / "tokenizer_config.json")
    names = read_object(folder / "special_tokens_map.json") | settings
    added: dict[str, int] = {}
    named = {text for name in _NAMING for text in _texts(names.get(name))}
    _check_settings(folder / "tokenizer_config.json", settings)
    for text, token in read_object(folder / "added_tokens.json").items():
        _add(added, text, token, folder / "added_tokens.json")
    entries = settings.get("added_tokens_decoder") or {}
    try:
        for token, entry in entries.items():
            _add(added, entry["content"], int(token), folder / "tokenizer_config.json")
            if entry.get("special"):
                named.add(entry["content"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'tokenizer_config.json'}: added_tokens_decoder={short_repr(entries)} is "
            "not a table of tokens"
        ) from error
    eos = next(iter(_texts(names.get("eos_token"))), None)
    return SpecialTokens(settings.get("tokenizer_class"), eos, frozenset(named), added)


def special_ids(value: Any, vocab_size: int) -> list[int]:
    """Returns the ids of an entry such as `eos_token_id`, without those that no model row has.

    Raises:
      UserError: if it is neither null, nor an id, nor a list of ids.
    """
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(type(id_) is not int for id_ in ids):
        raise UserError(f"{short_repr(value)} is neither a token id nor a list of token ids")
    return [id_ for id_ in dict.fromkeys(ids) if 0 <= id_ < vocab_size]


def separator(vocabulary: Vocabulary, named: str | None, ends: Sequence[int]) -> int | None:
    """Returns the id that separates documents, or None if there is none.

    It is the end of text that the tokenizer's files name (by default `<|endoftext|>`), unless
    generation ends at other added tokens only; then it is the first of these.
    """
    eos = vocabulary.added.get(named or END_OF_TEXT, vocabulary.added.get(END_OF_TEXT))
    stops = [token for token in vocabulary.added.values() if token in ends]
    return eos if eos in stops or not stops else stops[0]


def note_ends(
    folder: Path,
    named: str | None,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    log: Callable[[str], None],
) -> None:
    """Logs each end of text at which generation goes on, as it does in transformers."""
    names = {token: text for text, token in vocabulary.added.items()}
    unused = set() if tokenizer.eot is None else {tokenizer.eot}
    if named is not None and named in vocabulary.added:
        unused.add(vocabulary.added[named])
    elif named is not None:
        log(f"note: {folder}: the end of text {named!r:.60} is not used: no special token has it")
    for token in sorted(unused - tokenizer.ends):
        log(
            f"note: {folder}: generation does not stop at {names[token]!r:.60} (id {token}), "
            "because the model's eos_token_id does not list it, as in transformers"
        )


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("tokenizer_class")
    if kind is not None and kind not in _CLASSES:
        raise UnsupportedTokenizer(f"{path}: tokenizer_class={short_repr(kind)} is not supported")
    for name in _ADDING:
        if settings.get(name):
            raise UnsupportedTokenizer(
                f"{path}: {name}={short_repr(settings[name])} is not supported"
            )
    if settings.get("auto_map"):
        raise UnsupportedTokenizer(
            f"{path}: auto_map names a tokenizer in Python, which is not supported"
        )


def _add(added: dict[str, int], text: str, token: Any, path: Path) -> None:
    if not isinstance(text, str) or type(token) is not int or token < 0:
        raise UserError(
            f"{path}: {short_repr(text)} has the id {short_repr(token)}, but a token must be a "
            "string and its id an integer from 0"
        )
    if added.setdefault(text, token) != token:
        raise UserError(f"{path} gives {text!r:.40} the id {token}, another file {added[text]}")


def _texts(value: Any) -> Iterator[str]:
    """Yields the tokens of an entry: a string, an object with `content`, or several of them."""
    several = isinstance(value, Mapping) and "content" not in value
    for entry in value.values() if several else value if isinstance(value, list) else [value]:
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if isinstance(text, str):
            yield text


def read_object(path: Path) -> dict[str, Any]:
    """Returns the content of a JSON file, or nothing if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NOT_JSON as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    return content
