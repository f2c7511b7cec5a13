"""The table of all kinds of tokenizers, and the functions that make one by its name.

To add a kind, write its class in a file of its own, give it an entry in `_KINDS`, and add its name
to the choices of the config's `data.tokenizer`; a test checks that the two lists agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.tokenizers.base import Tokenizer
from gpt2_jax.tokenizers.bpe import BPETokenizer, GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.words import WordsTokenizer

__all__ = [
    "FIXED_CHOICES",
    "PREPARE_CHOICES",
    "Tokenizer",
    "make_tokenizer",
    "needs_characters",
    "tokenizer_from_dict",
]


class _Kind(NamedTuple):
    """Says how tokenizers of one kind are made."""

    from_dict: Callable[[Mapping[str, Any]], Tokenizer]
    """Rebuilds a tokenizer from its `to_dict`."""
    make: Callable[[], Tokenizer] | None = None
    """Makes a tokenizer whose vocabulary is fixed."""
    from_characters: Callable[[str], Tokenizer] | None = None
    """Makes a tokenizer for the characters of a corpus."""


# A kind with neither `make` nor `from_characters` only ever comes with a model or with data.
_KINDS: dict[str, _Kind] = {
    "gpt2": _Kind(GPT2Tokenizer.from_dict, make=GPT2Tokenizer),
    "byte": _Kind(ByteTokenizer.from_dict, make=ByteTokenizer),
    "char": _Kind(CharTokenizer.from_dict, from_characters=CharTokenizer),
    "bpe": _Kind(BPETokenizer.from_dict),
    "ids": _Kind(IdsTokenizer.from_dict),
    "words": _Kind(WordsTokenizer.from_dict),
}
PREPARE_CHOICES = tuple(
    name for name, kind in _KINDS.items() if kind.make is not None or kind.from_characters
)
"""Names of the tokenizers that text can be prepared with."""
FIXED_CHOICES = tuple(name for name, kind in _KINDS.items() if kind.make is not None)
"""Names of the tokenizers whose vocabulary does not depend on the data."""


def make_tokenizer(name: str, characters: str | None = None) -> Tokenizer:
    """Returns the tokenizer of that name.

    Args:
      name: one of `PREPARE_CHOICES`.
      characters: what a tokenizer of characters knows; others ignore it.

    Raises:
      UserError: for an unknown name, or for a tokenizer of characters without characters.
    """
    if name not in PREPARE_CHOICES:
        raise UserError(
            f"tokenizer must be one of {', '.join(PREPARE_CHOICES)}, not {name!r}"
            f"{did_you_mean(name, PREPARE_CHOICES)}"
        )
    kind = _KINDS[name]
    if kind.from_characters is None:
        assert kind.make is not None
        return kind.make()
    if characters is None:
        raise UserError(
            f"tokenizer {name} has no vocabulary of its own: give it the characters to know"
        )
    return kind.from_characters(characters)


def needs_characters(name: str) -> bool:
    """Returns whether `make_tokenizer` must be given the characters of the corpus."""
    return name in _KINDS and _KINDS[name].from_characters is not None


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Rebuilds a tokenizer from what `Tokenizer.to_dict` returned.

    Raises:
      UserError: if the values do not describe a tokenizer.
    """
    try:
        return _KINDS[values["name"]].from_dict(values)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"this does not describe a tokenizer: {str(values)[:80]!r}") from error
