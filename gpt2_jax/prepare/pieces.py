"""Documents as pieces of text that a tokenizer can encode one by one, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Characters given to the tokenizer at a time, and the most that there may be without a border:
# GPT-2's encoder takes about 60 bytes of memory per byte of a word.
_PIECE = 1 << 18
_LONGEST_PIECE = 1 << 24


class Piece(NamedTuple):
    """A piece of a document; the tokens of its pieces, joined, are the tokens of the document."""

    where: str
    """Names the document in messages, by its file and the place in it."""
    text: str
    begins_document: bool
    problem: str = ""
    """What is wrong with a row, which then has no text, such as `is not JSON`."""


class InvalidRowError(Exception):
    """Reports what is wrong with one row of a file; the rows after it can still be read."""


def split_text(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> Iterator[str]:
    """Yields a text again in pieces that end where the tokenizer has a border.

    Args:
      texts: the text in pieces of any size.
      tokenizer: decides where the text may be cut.
      where: names the text in messages.

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


def split_documents(
    documents: Iterable[tuple[str, str | InvalidRowError]], tokenizer: Tokenizer
) -> Iterator[Piece]:
    """Yields the pieces of documents that are in memory, each given as (where, text).

    An invalid row is a piece without text, so that whoever counts the documents can count it.
    """
    for where, document in documents:
        if isinstance(document, InvalidRowError):
            yield Piece(where, "", False, str(document))
            continue
        begins = True
        for text in split_text([document], tokenizer, where):
            yield Piece(where, text, begins)
            begins = False


def refuse_invalid(pieces: Iterable[Piece], skip_invalid: bool) -> Iterator[Piece]:
    """Yields the pieces, and with them invalid rows only if these are to be left out.

    Raises:
      UserError: naming the first invalid row otherwise.
    """
    for piece in pieces:
        if piece.problem and not skip_invalid:
            raise UserError(
                f"{piece.where}, {piece.problem} (--skip_invalid leaves such rows out and counts "
                "them)"
            )
        yield piece


def first_border(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> int | None:
    """Returns the bytes before the first border inside a text, or None if it has no border.

    Args:
      texts: the text in pieces of any size, of which only as many as needed are read.
      tokenizer: decides where the text may be cut.
      where: names the text in messages.

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


def checked_text(value: Any, field: str) -> str:
    """Returns the value of a field or column; raises InvalidRowError if it is not valid text."""
    if not isinstance(value, str):
        found = shortened(repr(value), 40)
        raise InvalidRowError(f"has {found} as {field!r}, which must be a string")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRowError(
                f"has a lone surrogate, {value[error.start]!r}, at character {error.start} of "
                f"{field!r}, which UTF-8 cannot represent"
            ) from None
    return value


def _no_border(where: str) -> UserError:
    return UserError(
        f"{where} has more than {_LONGEST_PIECE:,} characters in one word or one run of white "
        "space, where text may not be cut: divide it, or use --tokenizer byte"
    )
