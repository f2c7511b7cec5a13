"""Tokenizer files of Hugging Face's folders: tokenizer.json, or vocab.json and merges.txt.

Read are GPT-2's kind (byte-level byte-pair encoding, cut into words by GPT-2's pattern) and single
characters; anything else is refused by name. Written is one tokenizer.json for every kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.tokenizers import bpe
from gpt2_jax.tokenizers.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Tokenizer,
)

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
# GPT-2's table and the multiples it is padded to: a model of this size is taken for one of GPT-2's.
_GPT2_ROWS = range(50257, 50305)


def read_tokenizer(folder: Path, vocab_size: int, eos_token_id: Any = None) -> Tokenizer:
    """The tokenizer of a folder in Hugging Face's format.

    Args:
      vocab_size: rows of the model's token embedding; ids without a token stand for no text.
      eos_token_id: what config.json says ends a text; without it, `<|endoftext|>` where it exists.

    Raises:
      UserError: for files that are missing, broken, or of another kind of tokenizer.
    """
    if (folder / "tokenizer.json").is_file():
        where, read = folder / "tokenizer.json", _read_json
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        where, read = folder / "vocab.json", _read_pair
    elif vocab_size in _GPT2_ROWS:
        return GPT2Tokenizer(vocab_size)
    else:
        raise UserError(f"{folder} has no tokenizer.json, nor vocab.json and merges.txt")
    try:
        tokens, merges, added = read(where)
        if merges is None:
            return _characters(tokens, vocab_size)
        return _byte_pairs(tokens, merges, added, vocab_size, eos_token_id)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (*NOT_JSON, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not a tokenizer's file: {error}") from error


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers`."""
    eot = None
    if isinstance(tokenizer, CharTokenizer):
        tokens = {character: i for i, character in enumerate(tokenizer.characters)}
        content = _tokenizer_json(tokens, [], {}, byte_level=False)
    else:
        vocabulary = _vocabulary(tokenizer)
        texts = {token: text for text, token in vocabulary.added.items()}
        eot = texts.get(-1 if tokenizer.eot is None else tokenizer.eot)
        tokens = vocabulary.to_dict()["tokens"] | vocabulary.added
        merges = bpe.merges(vocabulary)
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


_NO_MODEL_SETTINGS = (
    *("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"),
    "ignore_merges",
)
_Parts = tuple[dict[str, int], list[tuple[str, str]] | None, dict[str, int]]


def _read_json(path: Path) -> _Parts:
    """(tokens, merges or None for single characters, added tokens) of a tokenizer.json."""
    content = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise UserError(f"a {model['type']} tokenizer is not supported: only byte-pair encodings")
    _refuse(content, "normalizer", content.get("normalizer") is None)
    post = content.get("post_processor") or {"type": "ByteLevel"}
    plain = post["type"] == "ByteLevel" or (
        post["type"] == "TemplateProcessing" and not post.get("special_tokens")
    )
    _refuse(content, "post_processor", plain)
    for name in _NO_MODEL_SETTINGS:
        _refuse(model, name, not model.get(name))
    cut = content.get("pre_tokenizer")
    merges = [_pair(merge) for merge in model["merges"]]
    added = {entry["content"]: entry["id"] for entry in content.get("added_tokens") or []}
    # Found in any text, which byte-pair encoding would cut otherwise.
    ordinary = [entry for entry in content.get("added_tokens") or [] if not entry.get("special")]
    if ordinary:
        raise UserError(f"added token {ordinary[0]['content']!r}, not special, is not supported")
    tokens = dict(model["vocab"])
    if cut is None and not merges and not added:
        return tokens, None, {}
    as_gpt2 = isinstance(cut, dict) and ({"use_regex": True} | cut).items() >= _BYTE_LEVEL.items()
    _refuse(content, "pre_tokenizer", as_gpt2)
    return tokens, merges, added


def _refuse(content: Mapping[str, Any], name: str, fine: bool) -> None:
    if not fine:
        raise UserError(f"{name}={json.dumps(content[name])[:80]} is not supported")


def _read_pair(path: Path) -> _Parts:
    """The same of a vocab.json and the merges.txt beside it."""
    tokens = json.loads(path.read_text(encoding="utf-8"))
    lines = (path.parent / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
    return tokens, merges, {}


def _pair(merge: Any) -> tuple[str, str]:
    """A merge, which files write as a pair or, in older ones, with a space between."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _byte_pairs(
    tokens: dict[str, int],
    merges: list[tuple[str, str]],
    added: dict[str, int],
    vocab_size: int,
    eos_token_id: Any,
) -> Tokenizer:
    vocabulary = bpe.from_merges(tokens, merges, added)
    eos = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    ends = [token for token in vocabulary.added.values() if token in eos]
    eot = ends[0] if ends else vocabulary.added.get(bpe.END_OF_TEXT)
    for known in (GPT2Tokenizer(max(vocab_size, 50257)), ByteTokenizer()):
        same = vocabulary == _vocabulary(known) and eot == known.eot
        if same and known.vocab_size == vocab_size:
            return known
    if bpe.merges(vocabulary) != merges:
        raise UserError("its merges make tokens of other parts than merging by id would")
    return BPETokenizer(vocabulary, eot, vocab_size)


def _characters(tokens: dict[str, int], vocab_size: int) -> Tokenizer:
    tokenizer = CharTokenizer("".join(tokens))
    numbered = list(tokens.values()) == list(range(len(tokens)))
    if [*tokens] != [*tokenizer.characters] or not numbered or len(tokens) != vocab_size:
        raise UserError("its tokens are not single characters, numbered in sorted order")
    return tokenizer


def _vocabulary(tokenizer: Tokenizer) -> bpe.Vocabulary:
    """The byte-pair encoding that a tokenizer is, or equals."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.vocabulary
    ranks = {bytes([byte]): byte for byte in range(256)}
    return bpe.Vocabulary(ranks, {bpe.END_OF_TEXT: 256})


def _tokenizer_json(
    tokens: Mapping[str, int],
    merges: list[tuple[str, str]],
    added: Mapping[str, int],
    byte_level: bool,
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    bytes_level = _BYTE_LEVEL | {"trim_offsets": True} if byte_level else None
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": text, **flags, "special": True}
            for text, token in sorted(added.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": bytes_level,
        "post_processor": bytes_level,
        "decoder": bytes_level or {"type": "Fuse"},
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
