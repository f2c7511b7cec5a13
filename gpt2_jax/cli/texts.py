"""Reads texts and token ids that flags name."""

from __future__ import annotations

from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.files.paths import local_path


def read_text(name: str, flag: str) -> str:
    """Returns the text of a UTF-8 file, with its line ends as they are.

    A byte order mark at its beginning, which editors on Windows write, is no part of the text.

    Raises:
      UserError: if it cannot be read, or is not UTF-8.
    """
    try:
        # Reading in text mode would convert \r\n to \n, which `prepare` does not.
        path = local_path(name, flag)
        content = path.read_bytes()
        refuse_lfs_pointer(path, content)
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"cannot read {flag} {name}: {error.strerror}") from error


def parse_ids(text: str, flag: str) -> list[int]:
    """Returns the ids of a list with commas or spaces.

    Raises:
      UserError: for anything else.
    """
    words = text.replace(",", " ").split()
    # A longer word is no id of any model, and Python refuses to convert one of 5000 digits.
    if not words or not all(w.isascii() and w.isdigit() and len(w) < 20 for w in words):
        raise UserError(f"{flag} must be token ids such as 1,2,3, not {short_repr(text)}")
    return [int(word) for word in words]
