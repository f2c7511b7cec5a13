"""Writes tokens so that they can be read in a figure: nothing invisible, nothing ambiguous."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT

_VISIBLE = {" ": "␣", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
# Control, format, surrogate, private and unassigned characters, and separators.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
_DOTTED_CIRCLE = "\u25cc"
_ELLIPSIS = "…"


class Labels:
    r"""Writes the tokens of one tokenizer.

    A space is `␣`, and what is invisible, no text of its own or missing in the fonts is an escape
    as in Python: a line break is `\n`, the first byte of 你 alone is `\xe4`.
    """

    def __init__(self, tokenizer: Tokenizer, drawable: Callable[[str], bool]) -> None:
        """Takes the tokenizer, and what says whether a character can be drawn."""
        self._tokenizer, self._drawable = tokenizer, drawable
        added = getattr(getattr(tokenizer, "vocabulary", None), "added", {})
        self._special = {token: name for name, token in added.items()}
        if tokenizer.eot is not None:
            self._special.setdefault(tokenizer.eot, END_OF_TEXT)

    def label(self, token: int, most: int = 12) -> str:
        """Returns one token's label of at most `most` characters; a longer one ends in `…`."""
        return shortened(self.pieces(token), most)

    def pieces(self, token: int) -> list[str]:
        """Returns the parts of a token's label that must not be cut: characters and escapes."""
        if token in self._special:
            return list(self._special[token])
        try:
            data = self._tokenizer.decode_bytes([token])
        except UserError:  # a model of ids, whose tokenizer is unknown
            data = b""
        if not data:
            return [f"#{token}"]
        # Each byte that is no text becomes a surrogate, U+DC80 + byte - 0x80.
        return written(data.decode("utf-8", "surrogateescape"), self._drawable)


def written(text: str, drawable: Callable[[str], bool]) -> list[str]:
    """Returns the characters of a text, each as itself or as an escape.

    Args:
      text: in which a byte that is no text is a surrogate, as `surrogateescape` makes them.
      drawable: says whether a character can be drawn.
    """
    return [_written(character, drawable) for character in text]


def _written(character: str, drawable: Callable[[str], bool]) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    if 0xDC80 <= (code := ord(character)) <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    if category in _UNSEEN or not drawable(character):
        return (
            character.encode("ascii", "backslashreplace").decode()
            if code > 126
            else (f"\\x{code:02x}")
        )
    # A mark that combines with the character before it would be drawn over the frame.
    return _DOTTED_CIRCLE + character if category in ("Mn", "Me") else character


def shortened(pieces: Sequence[str], most: int) -> str:
    """Returns the joined pieces, or as many as fit into `most` characters with `…` behind them."""
    whole = "".join(pieces)
    if len(whole) <= most:
        return whole
    shown = ""
    for piece in pieces:
        if len(shown + piece) > most - 1:
            break
        shown += piece
    return shown + _ELLIPSIS
