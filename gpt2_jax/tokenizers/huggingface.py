"""Tokenizer files in Hugging Face's folders: tokenizer.json, or vocab.json and merges.txt.

The kinds that can be read are GPT-2's (a byte-level byte-pair encoding in words cut by GPT-2's
pattern) and single characters; any other setting is refused by name. Every kind is written as one
tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.tokenizers import vocabulary as vocabularies
from gpt2_jax.tokenizers.base import Tokenizer
from gpt2_jax.tokenizers.bpe import BPETokenizer, GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
# GPT-2's embedding has 50257 rows, often padded to a multiple such as 50304. A model of such a size
# without any tokenizer files is assumed to use GPT-2's tokenizer.
_GPT2_VOCAB_SIZES = range(50257, 50305)


def read_tokenizer(folder: Path, vocab_size: int, eos_token_id: Any = None) -> Tokenizer:
    """Returns the tokenizer of a folder in Hugging Face's format.

    Args:
      folder: the folder with the tokenizer's files.
      vocab_size: rows of the model's token embedding; ids without a token stand for no text.
      eos_token_id: the id or ids that config.json gives for the end of a text; without a match it
        is `<|endoftext|>`, if the vocabulary has it.

    Raises:
      UserError: if files are missing, damaged, or of an unsupported kind of tokenizer.
    """
    if (folder / "tokenizer.json").is_file():
        path, read = folder / "tokenizer.json", _read_json
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        path, read = folder / "vocab.json", _read_pair
    elif vocab_size in _GPT2_VOCAB_SIZES:
        return GPT2Tokenizer(vocab_size)
    else:
        raise UserError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt: copy the "
            "tokenizer's files into it"
        )
    try:
        tokens, merges, added = read(path)
        if merges is None:
            return _characters(tokens, vocab_size)
        return _byte_pairs(tokens, merges, added, vocab_size, eos_token_id)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (*NOT_JSON, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a tokenizer's file: {error}") from error


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers`.

    Raises:
      UserError: if the format cannot express this kind of tokenizer.
    """
    eot = None
    if isinstance(tokenizer, CharTokenizer):
        tokens = {character: i for i, character in enumerate(tokenizer.characters)}
        content = _tokenizer_json(tokens, [], {}, byte_level=False)
    else:
        vocabulary = _vocabulary(tokenizer)
        texts = {token: text for text, token in vocabulary.added.items()}
        eot = texts.get(-1 if tokenizer.eot is None else tokenizer.eot)
        tokens = vocabulary.to_dict()["tokens"] | vocabulary.added
        merges = vocabularies.merges(vocabulary)
        content = _tokenizer_json(tokens, merges, vocabulary.added, byte_level=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "bos_token": eot,
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


def _read_json(path: Path) -> _Content:
    """Reads tokenizer.json."""
    content = json.loads(path.read_text(encoding="utf-8"))
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
    added = {entry["content"]: entry["id"] for entry in content.get("added_tokens") or []}
    # An added token that is not special is recognized in any text, before the encoding sees it.
    ordinary = [entry for entry in content.get("added_tokens") or [] if not entry.get("special")]
    if ordinary:
        raise UserError(
            f"added token {ordinary[0]['content']!r} is not supported, because it is not special"
        )
    tokens = dict(model["vocab"])
    if splitter is None and not merges and not added:
        return _Content(tokens, None, {})
    settings = {"use_regex": True} | splitter if isinstance(splitter, dict) else {}
    _require(content, "pre_tokenizer", settings.items() >= _BYTE_LEVEL.items())
    return _Content(tokens, merges, added)


def _require(content: Mapping[str, Any], name: str, supported: bool) -> None:
    """Raises UserError that names the setting and its value unless it is supported."""
    if not supported:
        raise UserError(f"{name}={json.dumps(content[name])[:80]} is not supported")


def _read_pair(path: Path) -> _Content:
    """Reads vocab.json and the merges.txt beside it."""
    tokens = json.loads(path.read_text(encoding="utf-8"))
    lines = (path.parent / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
    return _Content(tokens, merges, {})


def _pair(merge: Any) -> tuple[str, str]:
    """Returns a merge, which is a pair in newer files and one string with a space in older ones."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _byte_pairs(
    tokens: dict[str, int],
    merges: list[tuple[str, str]],
    added: dict[str, int],
    vocab_size: int,
    eos_token_id: Any,
) -> Tokenizer:
    """Returns the tokenizer of a byte-pair encoding, which may be GPT-2's or that of bytes."""
    vocabulary = vocabularies.from_merges(tokens, merges, added)
    eos = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    ends = [token for token in vocabulary.added.values() if token in eos]
    eot = ends[0] if ends else vocabulary.added.get(END_OF_TEXT)
    for known in (GPT2Tokenizer(max(vocab_size, 50257)), ByteTokenizer()):
        same = vocabulary == _vocabulary(known) and eot == known.eot
        if same and known.vocab_size == vocab_size:
            return known
    if vocabularies.merges(vocabulary) != merges:
        raise UserError("its merges make a token of other pairs than merging by id would")
    return BPETokenizer(vocabulary, eot, vocab_size)


def _characters(tokens: dict[str, int], vocab_size: int) -> Tokenizer:
    """Returns the tokenizer of single characters."""
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
