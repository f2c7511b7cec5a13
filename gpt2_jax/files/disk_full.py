"""How a full disk is recognized, and the message about it."""

from __future__ import annotations

import errno
import os

# EFBIG: the file reached a limit of its file system or of the process (`ulimit -f`).
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# TensorStore raises a ValueError that ends in the operating system's words for the error.
_WORDS = tuple(os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT))
_REMEDY = "make room and run the same command again"


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error, or one that caused it, says that a disk or a quota is full."""
    return _find(error) is not None


def disk_full_message(
    error: BaseException, *, place: str | None = None, remedy: str = _REMEDY
) -> str:
    """Returns the message about a full disk, in one line.

    Args:
      error: an error for which `is_disk_full` is true.
      place: what is full; by default the file that the error names.
      remedy: what the user should do; empty if the caller goes on by itself.
    """
    full = _find(error)
    place = place or getattr(full, "filename", None) or "the disk"
    ending = f": {remedy}" if remedy else ""
    if isinstance(full, OSError) and full.errno == errno.EFBIG:
        return f"no space left on {place} (a limit on the size of a file, see ulimit -f){ending}"
    return f"no space left on {place}{ending}"


def _find(error: BaseException | None) -> BaseException | None:
    """Returns the first error that tells of a full disk, along the chain of causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return error
        if any(words in str(error).lower() for words in _WORDS):
            return error
        # As Python prints them: `raise ... from None` cuts the chain.
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return None
