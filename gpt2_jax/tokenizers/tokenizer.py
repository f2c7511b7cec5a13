"""Text to token ids and back: GPT-2's byte-pair encoding, plain bytes, and single characters.

`decode(encode(text)) == text` holds for every valid text that the tokenizer knows. A literal
`<|endoftext|>` in a text is ordinary text: only code that joins documents writes the special id.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.tokenizers import bpe


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

    def border(self, text: str, at: int) -> int | None:
        """The first place from `at`, 1 or more, on where `text` may be cut; None for none.

        The tokens of what is before and of what is after, joined, are those of the text, whatever
        comes before and after it.
        """
        return at if at < len(text) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `tokenizer_from_dict` is the inverse."""
        return {"name": self.name}


class BPETokenizer(Tokenizer):
    """A byte-level byte-pair encoding cut up as GPT-2's is, with a vocabulary of its own."""

    def __init__(
        self, vocabulary: bpe.Vocabulary, eot: int | None = None, vocab_size: int | None = None
    ) -> None:
        """Takes a vocabulary and the id that ends a text.

        Args:
          vocab_size: ids that a model may give; those the vocabulary lacks stand for no text.
            Default: as many as the vocabulary needs.

        Raises:
          UserError: for a vocabulary that byte-pair encoding by rank can't do.
        """
        ids = [*vocabulary.ranks.values(), *vocabulary.added.values()]
        # tiktoken takes these for granted.
        if len(set(ids)) < len(ids) or any(type(id_) is not int or id_ < 0 for id_ in ids):
            raise UserError("its tokens' ids are not different whole numbers from 0 on")
        size = max(ids, default=-1) + 1
        self.name, self.vocab_size, self.eot = "bpe", vocab_size or size, eot
        if self.vocab_size < size or (eot is not None and not 0 <= eot < self.vocab_size):
            raise UserError(
                f"{size} tokens, the end of text {eot}, do not fit {self.vocab_size} ids"
            )
        self.vocabulary = vocabulary
        self._encoding = bpe.encoding(vocabulary)

    def encode_array(self, text: str) -> np.ndarray:
        """Token ids, uint16 [T], or uint32 where ids need it; added tokens are ordinary text."""
        _utf8(text)
        # An empty `disallowed_special` makes a literal end of text ordinary text.
        ids = self._encoding.encode_to_numpy(text, allowed_special=set(), disallowed_special=())
        return ids.astype(np.min_scalar_type(max(self.vocab_size - 1, 256)))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The tokens' bytes; the end of text gives its text, such as `<|endoftext|>`."""
        ids = _checked_ids(tokens, self)
        if len(self._texts) < self.vocab_size:
            ids = [token for token in ids if token in self._texts]
        return self._encoding.decode_bytes(ids)

    def byte_lengths(self) -> np.ndarray:
        """int32 [vocab_size]: bytes of each token; added tokens are no text and have none."""
        lengths = np.zeros(self.vocab_size, np.int32)
        for text, token in self.vocabulary.ranks.items():
            lengths[token] = len(text)
        return lengths

    def border(self, text: str, at: int) -> int | None:
        """A place where no word of GPT-2's pattern can go on, such as before a space."""
        return bpe.border(text, at)

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary, whole."""
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "eot": self.eot,
            "vocabulary": self.vocabulary.to_dict(),
        }

    @functools.cached_property
    def _texts(self) -> frozenset[int]:
        """Ids that stand for something."""
        return frozenset([*self.vocabulary.ranks.values(), *self.vocabulary.added.values()])


class GPT2Tokenizer(BPETokenizer):
    """GPT-2's byte-pair encoding: 50,256 tokens and the end of text, id 50256."""

    def __init__(self, vocab_size: int | None = None) -> None:
        """Builds the encoder; UserError where the vocabulary files are missing or changed."""
        super().__init__(bpe.gpt2_vocabulary(), eot=50256, vocab_size=vocab_size)
        self.name = "gpt2"

    def to_dict(self) -> dict[str, Any]:
        """The name, and how many ids the model has where they are more than GPT-2's."""
        more = {"vocab_size": self.vocab_size} if self.vocab_size != 50257 else {}
        return {"name": self.name} | more


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
NAMES = ("gpt2", "byte", "char")  # those that text is prepared with; "bpe" comes with a model


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
    try:
        if values["name"] == "bpe":
            vocabulary = bpe.Vocabulary.from_dict(values["vocabulary"])
            return BPETokenizer(vocabulary, values["eot"], values["vocab_size"])
        if values["name"] == "gpt2":
            return GPT2Tokenizer(values.get("vocab_size"))
        return make_tokenizer(values["name"], values.get("characters"))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"not the description of a tokenizer: {str(values)[:80]!r}") from error


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
