"""What can go wrong, and the exit status each kind of failure ends with."""

from __future__ import annotations

import contextlib
import difflib
import errno
import sys
from collections.abc import Iterable


class Gpt2JaxError(Exception):
    """An expected failure: the command line prints it as one line and exits with `exit_status`."""

    exit_status = 1


class UserError(Gpt2JaxError):
    """Bad flags, config, data, or a workdir of another run; the message says what to do."""

    exit_status = 2


class Preempted(Gpt2JaxError):
    """The run was told to stop, and has saved: start it again to go on."""

    exit_status = 75


class NumbersWentBad(Gpt2JaxError):
    """Too many steps in a row had a loss or a gradient that is not finite."""

    exit_status = 76


class PeersLost(Gpt2JaxError):
    """Other processes of the run never came, are gone or hang: start all of them again."""

    exit_status = 77


class StorageError(Gpt2JaxError):
    """Saving failed, or no usable checkpoint is left."""

    exit_status = 78


# What reading a file of JSON raises: it can't be read, is not UTF-8, is none, or nests too deeply.
NOT_JSON = (OSError, ValueError, RecursionError)


class Terminated(BaseException):
    """SIGTERM has come. As with KeyboardInterrupt, nothing has failed: what can be kept is kept."""


def shortened(text: str, length: int) -> str:
    """The text as one line, which ends in `...` where it would be longer than `length`."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or the user's part of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def told(error: BaseException) -> str:
    """What an error says, or its name where it says nothing."""
    return str(error) or type(error).__name__


def no_room(error: OSError) -> str:
    """What to say of a full disk."""
    where = error.filename or "the disk"
    return f"no space left on {where}: make room and run the same command again"


def say(line: str) -> None:
    """Prints a line on standard error, if there is anyone to read it, or room for it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Says on standard error what the user should know, though the program can go on."""
    say(f"warning: {message}")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the closest candidate, or an empty string."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


_LONGEST_SHOWN = 80


def shown(value: object) -> str:
    """Returns `repr(value)` cut short, for a message; any value of a user's file has one."""
    try:
        text = repr(value)
    except Exception:  # of a number with thousands of digits, of what is nested too deeply
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
