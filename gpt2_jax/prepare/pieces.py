"""Documents as pieces of text that a tokenizer can take one by one, in bounded memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Characters given to the tokenizer at a time, and how many there may be without a border in them:
# GPT-2's encoder takes about 60 bytes of memory a byte of a word.
_PIECE = 1 << 18
_LONGEST_PIECE = 1 << 24


class Text(NamedTuple):
    """A piece of a document; the pieces' tokens joined are the tokens of the document."""

    where: str
    """What messages call it by."""
    text: str
    begins: bool
    """Whether a document begins here."""


def pieces(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> Iterator[str]:
    """A text that comes in any pieces, in pieces that end where the tokenizer has a border.

    Raises:
      UserError: for more than 16 million characters without a border.
    """
    rest, searched = "", 0
    for text in texts:
        rest, start = rest + text, 0
        while len(rest) - start > _PIECE:
            cut = tokenizer.border(rest, max(start + _PIECE, searched))
            if (cut or len(rest)) - start > _LONGEST_PIECE:
                raise _no_border(where)
            if cut is None:
                searched = len(rest)
                break
            yield rest[start:cut]
            start = cut
        rest, searched = rest[start:], max(searched - start, 0)
    if rest:
        yield rest


def whole(documents: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> Iterator[Text]:
    """Documents that are in memory, each in pieces."""
    for where, document in documents:
        begins = True
        for text in pieces([document], tokenizer, where):
            yield Text(where, text, begins)
            begins = False


def first_border(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> int | None:
    """Bytes before the first place, but the start, where a text may be cut; None for no such place.

    Args:
      texts: the text in any pieces, read only as far as needed.

    Raises:
      UserError: for more than 16 million characters without a border.
    """
    start, searched = "", 1
    for text in texts:
        start += text
        if (cut := tokenizer.border(start, searched)) is not None:
            return len(start[:cut].encode("utf-8"))
        searched = max(len(start), 1)
        if len(start) > _LONGEST_PIECE:
            raise _no_border(where)
    return None


def checked_text(value: Any, where: str, field: str) -> str:
    """The value of a field or column, if it is text; else UserError."""
    if not isinstance(value, str):
        shown = shortened(repr(value), 40)
        raise UserError(f"{where}, has {shown} as {field!r}, which must be a text")
    return value


def extra(name: str, package: str, why: str) -> Any:
    """Imports a package of an extra; UserError that names the extra where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{why} needs the {name} extra: pip install 'gpt2_jax[{name}]'") from None


def _no_border(where: str) -> UserError:
    return UserError(
        f"{where} has more than {_LONGEST_PIECE:,} characters without a space, a new line or "
        "another place to cut: break them up, or use --tokenizer byte"
    )
