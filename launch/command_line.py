"""Parses the command lines of the launchers: flags, then `--`, then the command to run.

It needs only the standard library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# The exit status after a wrong command line, of gpt2-jax and of the launchers.
MISTAKE = 2


class CommandLine(argparse.ArgumentParser):
    """Parses the command line of a launcher, whose module docstring is its --help."""

    def __init__(self, script: str, docstring: str | None) -> None:
        """Declares --dry-run and the command.

        Args:
          script: the path that the user runs, such as `launch/local.py`.
          docstring: of the script; its first line is shown before the flags, the rest after them.
        """
        first, *rest = (docstring or "").splitlines()
        super().__init__(
            prog=script,
            usage=f"{script} [flags] -- COMMAND...",
            description=first,
            epilog="\n".join(rest),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._required = self.add_argument_group("required")
        self.add_argument(
            "--dry-run",
            "--dry_run",
            action="store_true",
            help="print what would run, without running it",
        )
        # Everything that follows, including the --, so that a missing -- can be reported.
        self.add_argument(
            "command",
            nargs=argparse.REMAINDER,
            metavar="COMMAND",
            help="the command to run, after --",
        )

    def require(self, flag: str, metavar: str, **settings: Any) -> None:
        """Declares a flag that is required, and shows it as such in --help."""
        self._required.add_argument(flag, metavar=metavar, required=True, **settings)
        self.usage = f"{self.usage}".replace(" [flags]", f" {flag} {metavar} [flags]")

    def parse(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """Returns the flags, and as `command` the words after `--`; by default of `sys.argv`.

        A wrong command line ends the process.
        """
        args = self.parse_args(words)
        dashes, args.command = args.command[:1], args.command[1:]
        if dashes not in ([], ["--"]):
            self.error(f"put -- before the command: {self.prog} [flags] -- {dashes[0]} ...")
        if not args.command:
            self.error("the command is missing: put it after --")
        return args

    def error(self, message: str) -> NoReturn:
        """Ends the process with a line, without argparse's usage message."""
        refuse(f"{message} (see {self.prog} --help)")


def refuse(message: str) -> NoReturn:
    """Ends the process with a line and the status of a wrong command line."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(MISTAKE)


def cannot_run(program: str, error: OSError) -> NoReturn:
    """Ends the process because a command could not be started."""
    if isinstance(error, FileNotFoundError) and "/" not in program:
        refuse(f"cannot run {program}: no such command on the PATH")
    refuse(f"cannot run {program}: {error.strerror}")


def count(text: str) -> int:
    """Parses the value of a flag that is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Parses the value of a flag that is a number of seconds, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, at least 0, not {text!r}")
    return value


def shell_status(returncode: int) -> int:
    """Returns an exit status as shells report it: 128 + the signal if one ended the process."""
    return returncode if returncode >= 0 else 128 - returncode
