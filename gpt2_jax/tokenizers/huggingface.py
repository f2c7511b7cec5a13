"""Tokenizer files in Hugging Face's folders: tokenizer.json, or vocab.json and merges.txt.

The kinds that can be read are GPT-2's (a byte-level byte-pair encoding in words cut by GPT-2's
pattern) and single characters; any other setting is refused by name. Every kind is written as one
tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers import vocabulary as vocabularies
from gpt2_jax.tokenizers.base import Tokenizer, UnsupportedTokenizer
from gpt2_jax.tokenizers.bpe import BPETokenizer, GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.special_tokens import (
    GPT2_CLASSES,
    SpecialTokens,
    note_ends,
    read_object,
    read_special_tokens,
    separator,
    special_ids,
)
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
# GPT-2's embedding has 50257 rows, often padded to a multiple such as 50304. A model of such a size
# without any tokenizer files is assumed to use GPT-2's tokenizer.
_GPT2_VOCAB_SIZES = range(50257, 50305)


def read_tokenizer(
    folder: Path,
    vocab_size: int,
    eos_token_id: Any = None,
    bos_token_id: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Tokenizer:
    """Returns the tokenizer of a folder in Hugging Face's format.

    GPT-2's is assumed if the folder has no tokenizer files and the model has as many ids.

    Args:
      folder: the folder with the tokenizer's files.
      vocab_size: rows of the model's token embedding; ids without a token stand for no text.
      eos_token_id: the id or ids at which generation stops; those beyond `vocab_size` never occur.
      bos_token_id: the id that begins a text without a prompt.
      log: called with a line for what was assumed, or is unlike what the files suggest.

    Raises:
      UnsupportedTokenizer: if there is no tokenizer, it is of another kind, or a file is damaged.
    """
    json_file, vocab_file = folder / "tokenizer.json", folder / "vocab.json"
    pair = vocab_file.is_file() and (folder / "merges.txt").is_file()
    path = json_file if json_file.is_file() else vocab_file if pair else None
    try:
        special = read_special_tokens(folder)
        if path is None:
            _require_gpt2(folder, vocab_size, special.tokenizer_class)
            log(
                f"note: {folder} has no tokenizer files, but as many token ids as GPT-2 "
                f"({vocab_size}): GPT-2's tokenizer is assumed"
            )
            vocabulary = vocabularies.gpt2_vocabulary()
        else:
            read = _read_json if path == json_file else _read_pair
            content = _with_special(read(path), special)
            if content.merges is None:
                return _characters(content.tokens, vocab_size, eos_token_id)
            vocabulary = _byte_pairs(content)
        ends = special_ids(eos_token_id, vocab_size)
        eot = separator(vocabulary, special.eos, ends)
        bos = next(iter(special_ids(bos_token_id, vocab_size)), eot)
        tokenizer = _tokenizer(vocabulary, vocab_size, eot, bos, frozenset(ends))
    except UserError as error:
        where = "" if str(folder) in str(error) else f"{path or folder}: "
        raise UnsupportedTokenizer(f"{where}{error}") from error
    except KeyError as error:
        raise UnsupportedTokenizer(f"{path}: it has no {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnsupportedTokenizer(
            f"{path}: its entries do not have the form of a tokenizer's ({error})"
        ) from error
    note_ends(folder, special.eos, vocabulary, tokenizer, log)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers`.

    Raises:
      UserError: if the format cannot express this kind of tokenizer.
    """
    eot = bos = None
    if isinstance(tokenizer, CharTokenizer):
        tokens = {character: i for i, character in enumerate(tokenizer.characters)}
        content = _tokenizer_json(tokens, [], {}, byte_level=False)
    else:
        vocabulary = _vocabulary(tokenizer)
        texts = {token: text for text, token in vocabulary.added.items()}
        eot = texts.get(-1 if tokenizer.eot is None else tokenizer.eot)
        bos = texts.get(-1 if tokenizer.bos is None else tokenizer.bos)
        tokens = vocabulary.to_dict()["tokens"] | vocabulary.added
        merges = vocabularies.merges(vocabulary)
        content = _tokenizer_json(tokens, merges, vocabulary.added, byte_level=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "bos_token": bos,
        "eos_token": eot,
    }
    _write_json(folder / "tokenizer.json", content)
    _write_json(folder / "tokenizer_config.json", settings)


# Settings of the encoding that change its tokens and must not be set.
_UNSUPPORTED_SETTINGS = (
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "dropout",
    "byte_fallback",
    "ignore_merges",
)


class _Content(NamedTuple):
    """What the files of a tokenizer say, in visible characters."""

    tokens: dict[str, int]
    merges: list[tuple[str, str]] | None
    """None if the tokens are single characters."""
    added: dict[str, int]
    special: set[str]
    """The added tokens that stand for themselves only where code writes them, never in a text."""


def _read_json(path: Path) -> _Content:
    """Reads tokenizer.json."""
    content = read_object(path)
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise UserError(f"a {model['type']} tokenizer is not supported: it must be a BPE")
    _require(content, "normalizer", content.get("normalizer") is None)
    post = content.get("post_processor") or {"type": "ByteLevel"}
    adds_no_tokens = post["type"] == "ByteLevel" or (
        post["type"] == "TemplateProcessing" and not post.get("special_tokens")
    )
    _require(content, "post_processor", adds_no_tokens)
    for name in _UNSUPPORTED_SETTINGS:
        _require(model, name, not model.get(name))
    splitter = content.get("pre_tokenizer")
    merges = [_pair(merge) for merge in model["merges"]]
    entries = content.get("added_tokens") or []
    added = {entry["content"]: entry["id"] for entry in entries}
    special = {entry["content"] for entry in entries if entry.get("special")}
    tokens = dict(model["vocab"])
    if splitter is None and not merges and not added:
        return _Content(tokens, None, {}, set())
    settings = {"use_regex": True} | splitter if isinstance(splitter, dict) else {}
    _require(content, "pre_tokenizer", settings.items() >= _BYTE_LEVEL.items())
    return _Content(tokens, merges, added, special)


def _require(content: Mapping[str, Any], name: str, supported: bool) -> None:
    """Raises UserError that names the setting and its value unless it is supported."""
    if not supported:
        raise UserError(f"{name}={json.dumps(content.get(name))[:80]} is not supported")


def _read_pair(path: Path) -> _Content:
    """Reads vocab.json and the merges.txt beside it."""
    tokens = read_object(path)
    merges_file = path.parent / "merges.txt"
    try:
        lines = merges_file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{merges_file} is not text: {error}") from error
    merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
    return _Content(tokens, merges, {}, set())


def _pair(merge: Any) -> tuple[str, str]:
    """Returns a merge, which is a pair in newer files and one string with a space in older ones."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _with_special(content: _Content, special: SpecialTokens) -> _Content:
    """Adds the tokens of the files beside the tokenizer's own."""
    added = dict(content.added)
    for text, token in special.added.items():
        if added.setdefault(text, token) != token or content.tokens.get(text, token) != token:
            raise UserError(f"the token {text!r:.40} has another id in a file beside it: {token}")
    # Any other added token is recognized in any text, before the encoding sees it.
    for text in added:
        if text not in content.special | special.named:
            raise UserError(f"added token {text!r} is not supported, because it is not special")
    if added and content.merges is None:
        raise UserError("a tokenizer of characters with added tokens is not supported")
    return content._replace(added=added)


def _byte_pairs(content: _Content) -> Vocabulary:
    """Returns the vocabulary of a byte-pair encoding."""
    assert content.merges is not None
    vocabulary = vocabularies.from_merges(content.tokens, content.merges, content.added)
    known = (vocabularies.gpt2_vocabulary(), _vocabulary(ByteTokenizer()))
    if vocabulary not in known and vocabularies.merges(vocabulary) != content.merges:
        raise UserError("its merges make a token of other pairs than merging by id would")
    return vocabulary


def _tokenizer(
    vocabulary: Vocabulary, vocab_size: int, eot: int | None, bos: int | None, ends: frozenset[int]
) -> Tokenizer:
    """Returns the tokenizer of a byte-pair encoding, which may be GPT-2's or that of bytes."""
    for known in (GPT2Tokenizer(max(vocab_size, 50257)), ByteTokenizer()):
        same = vocabulary == _vocabulary(known) and known.vocab_size == vocab_size
        if same and (eot, bos, ends) == (known.eot, known.bos, known.ends):
            return known
    return BPETokenizer(vocabulary, eot, vocab_size, bos, ends)


# Names of files that belong to the tokenizers of other models, or are a part of GPT-2's.
_OTHER_FILES = (
    "vocab.json", "merges.txt", "added_tokens.json", "vocab.txt", "*.model", "*.vocab", "vocab.bpe",
    "encoder.json", "*.tiktoken", "tekken.json", "dict.txt", "*.codes", "tokenizer.bin",
)  # fmt: skip


def _require_gpt2(folder: Path, vocab_size: int, tokenizer_class: str | None) -> None:
    """Raises UserError unless GPT-2's tokenizer may be assumed in a folder without its files."""
    others = sorted(path.name for pattern in _OTHER_FILES for path in folder.glob(pattern))
    if others:
        raise UserError(
            f"{folder} has {others[0]}, but neither tokenizer.json nor vocab.json and merges.txt: "
            "copy the tokenizer's files into it"
        )
    if tokenizer_class not in (None, *GPT2_CLASSES) or vocab_size not in _GPT2_VOCAB_SIZES:
        raise UserError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt: copy the "
            "tokenizer's files into it"
        )


def _characters(tokens: dict[str, int], vocab_size: int, eos_token_id: Any) -> Tokenizer:
    """Returns the tokenizer of single characters."""
    if special_ids(eos_token_id, vocab_size):
        raise UserError("a tokenizer of characters with an end of text is not supported")
    tokenizer = CharTokenizer("".join(tokens))
    numbered = list(tokens.values()) == list(range(len(tokens)))
    if [*tokens] != [*tokenizer.characters] or not numbered or len(tokens) != vocab_size:
        raise UserError("its tokens must be single characters, numbered in sorted order")
    return tokenizer


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Returns the byte-pair encoding that a tokenizer uses, or is equivalent to."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.vocabulary
    if isinstance(tokenizer, ByteTokenizer):
        ranks = {bytes([byte]): byte for byte in range(256)}
        return Vocabulary(ranks, {END_OF_TEXT: 256})
    raise UserError(f"a {tokenizer.name} tokenizer cannot be written in Hugging Face's format")


def _tokenizer_json(
    tokens: Mapping[str, int],
    merges: list[tuple[str, str]],
    added: Mapping[str, int],
    byte_level: bool,
) -> dict[str, Any]:
    """Returns the content of a tokenizer.json."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    processor = _BYTE_LEVEL | {"trim_offsets": True} if byte_level else None
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": text, **flags, "special": True}
            for text, token in sorted(added.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": processor,
        "post_processor": processor,
        "decoder": processor or {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(tokens.items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in merges],
        },
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
