"""The kinds of failure, the exit status that each ends with, and how messages are printed."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable


class Gpt2JaxError(Exception):
    """Reports an expected failure: the command line prints one line and exits `exit_status`."""

    exit_status = 1


class UserError(Gpt2JaxError):
    """Reports bad flags, config or data, or a workdir of another run, and what to do about it."""

    exit_status = 2


class Preempted(Gpt2JaxError):
    """Reports that the run was asked to stop and has saved: the same command resumes it."""

    exit_status = 75


class NumbersWentBad(Gpt2JaxError):
    """Reports that too many steps in a row had a loss or a gradient that is not finite."""

    exit_status = 76


class PeersLost(Gpt2JaxError):
    """Reports that other processes of the run are missing or hang: all must be started again."""

    exit_status = 77


class StorageError(Gpt2JaxError):
    """Reports that saving failed, or that no usable checkpoint is left."""

    exit_status = 78


# Raised by reading a JSON file: it is unreadable, not UTF-8, malformed or nested too deep.
NOT_JSON = (OSError, ValueError, RecursionError)


class Terminated(BaseException):
    """Reports SIGTERM. Like KeyboardInterrupt it is no failure: finished work is kept."""


def shortened(text: str, length: int) -> str:
    """Returns the text as one line of at most `length` characters, which ends in `...` if cut."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def error_text(error: BaseException) -> str:
    """Returns the message of an error, or the name of its type if it has none."""
    return str(error) or type(error).__name__


def print_stderr(line: str) -> None:
    """Prints a line on standard error, unless it is closed or its disk is full."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Prints a warning on standard error."""
    print_stderr(f"warning: {message}")


def did_you_mean(name: str, candidates: Iterable[str], closeness: float = 0.6) -> str:
    """Returns `; did you mean 'x'?` for the closest candidate.

    It is empty if none is close, or if the name is one: then something else about it is wrong.

    Args:
      name: what was written.
      candidates: what may be written.
      closeness: the least ratio of `difflib` between them. At 0.6, `gpu` is close to `cpu`.
    """
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=closeness)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


_LONGEST_REPR = 80


def short_repr(value: object) -> str:
    """Returns `repr(value)` cut to 80 characters, for messages that quote a value from a file."""
    try:
        text = repr(value)
    except Exception:  # of an integer with thousands of digits, or a value that nests too deep
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 3] + "..."
