"""What the launchers share: flags, then `--`, then a command to run; a mistake is one line.

Needs the standard library only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# The exit status of a mistake in a command line, of gpt2-jax and of the launchers.
MISTAKE = 2


class CommandLine(argparse.ArgumentParser):
    """The command line of a launcher, whose module docstring is its --help."""

    def __init__(self, script: str, docstring: str | None) -> None:
        """Declares --dry-run and the command.

        Args:
          script: what the user calls it, such as `launch/local.py`.
          docstring: of the script; its first line comes before the flags, the rest after them.
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
            "--dry-run", "--dry_run", action="store_true", help="print what would run, run nothing"
        )
        # All the rest, with the --, so that a -- that is missing can be told.
        self.add_argument(
            "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, after --"
        )

    def require(self, flag: str, metavar: str, **settings: Any) -> None:
        """Declares a flag that must be given, and shows it as such in --help."""
        self._required.add_argument(flag, metavar=metavar, required=True, **settings)
        self.usage = f"{self.usage}".replace(" [flags]", f" {flag} {metavar} [flags]")

    def parse(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """The flags, and `command`: the words after `--`. By default of `sys.argv`.

        A mistake ends the process.
        """
        args = self.parse_args(words)
        dashes, args.command = args.command[:1], args.command[1:]
        if dashes not in ([], ["--"]):
            self.error(f"put -- before the command: {self.prog} [flags] -- {dashes[0]} ...")
        if not args.command:
            self.error("name a command after --")
        return args

    def error(self, message: str) -> NoReturn:
        """Ends the process with a line; argparse's usage dump would bury it."""
        refuse(f"{message} (see {self.prog} --help)")


def refuse(message: str) -> NoReturn:
    """Ends the process with a line and the status of a mistake."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(MISTAKE)


def cannot_run(program: str, error: OSError) -> NoReturn:
    """Refuses a command that could not be started."""
    if isinstance(error, FileNotFoundError) and "/" not in program:
        refuse(f"can't run {program}: no such command on the PATH")
    refuse(f"can't run {program}: {error.strerror}")


def count(text: str) -> int:
    """Type of a flag: a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Type of a flag: a number of seconds from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, not {text!r}")
    return value


def shell_status(returncode: int) -> int:
    """A process's exit status as a shell has it: 128 + the signal if one ended it."""
    return returncode if returncode >= 0 else 128 - returncode
