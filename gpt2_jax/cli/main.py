"""The console command: finds the verb, parses its flags, turns failures into a line and a status.

A verb is a module `gpt2_jax.cli.<verb>` that offers what `Verb` lists. Only the verb asked for is
imported, so that `--help` and a typo answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from gpt2_jax import __version__
from gpt2_jax.cli.process import quiet_libraries, sigterm_raises, stdout_is_ours
from gpt2_jax.errors import (
    Gpt2JaxError,
    Preempted,
    StorageError,
    Terminated,
    UserError,
    did_you_mean,
    is_disk_full,
)

# What `gpt2-jax --help` says of each verb; the verb's own --help starts from its HELP.
VERBS = {
    "prepare": "turn text into token shards",
    "plan": "foretell a run on TPUs or GPUs: memory, transfers, time and cost",
    "train": "train a model, or resume a run",
    "sample": "generate text from a model",
    "eval": "score a model on LAMBADA, HellaSwag and others",
    "convert": "write a model in another format",
    "doctor": "show what is installed, which devices there are and which fast paths are on",
}

_EXAMPLES = """\
gpt2-jax prepare --corpus python-stdlib --tokenizer byte --out runs/data/python-stdlib
gpt2-jax train --config configs/quickstart.py --workdir runs/quickstart
gpt2-jax sample --model runs/quickstart --prompt "def "
gpt2-jax doctor"""

_FLAG = re.compile(r"--[A-Za-z][\w.-]*")
_OVERRIDE = "--config."
_PATHS = ("DIR", "FILE", "PATH", "M")

# Beside the statuses in errors.py, what shells use: 128 + SIGINT, SIGPIPE and SIGTERM.
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143

# The trainer answers SIGTERM by saving. A plan has nothing to keep, and compiles for minutes in
# which no handler could run.
_OWN_SIGTERM = ("train", "plan")


class Verb(Protocol):
    """What a module `gpt2_jax.cli.<verb>` offers."""

    HELP: str
    """What the verb does, for its --help."""
    EXAMPLES: str
    """Command lines, one a line, for its --help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the verb's flags, spelled with underscores."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit status.

        `args.debug` is always set. For a verb that declares `--config`, `args.config_overrides` is
        the list of its `--config.section.key=value` flags as `section.key=value`, in order.
        """
        ...


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are a UserError: one line, no usage dump."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def path_actions(self) -> list[argparse.Action]:
        """The flags that take a path, as their metavar says."""
        return [action for action in self._actions if action.metavar in _PATHS]

    def flags(self) -> list[str]:
        """Every long flag declared so far."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, `sys.argv` by default, and returns its exit status (see errors.py)."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, debug = _take_debug(words)
    try:
        status = _dispatch(words, debug)
        # Here, where a closed pipe can still be answered, rather than as Python exits.
        sys.stdout.flush()
        return status
    except SystemExit as leaving:  # argparse's --help and --version
        return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except BaseException as error:
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        return _report(error, debug)


def console() -> NoReturn:
    """Entry point of `gpt2-jax` and `python -m gpt2_jax`."""
    status = main()
    distributed = sys.modules.get("gpt2_jax.parallel.distributed")
    if distributed is not None and status not in (0, Preempted.exit_status):
        distributed.leave(status)
    sys.exit(status)


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """Removes `--debug`, which may stand anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _dispatch(words: list[str], debug: bool) -> int:
    if words and not words[0].startswith("-"):
        name, rest = words[0], words[1:]
        if name not in VERBS:
            hint = did_you_mean(name, VERBS) or f"; verbs: {', '.join(VERBS)}"
            raise UserError(f"unknown verb {name!r}{hint}")
        if not debug:
            quiet_libraries()
        verb = cast(Verb, importlib.import_module(f"gpt2_jax.cli.{name}"))
        args = parse(name, verb, rest)
        args.debug = debug
        with contextlib.ExitStack() as stack:
            if name not in _OWN_SIGTERM:
                stack.enter_context(sigterm_raises())
            if getattr(args, "json", False):
                stack.enter_context(stdout_is_ours())
            return verb.run(args)
    parser = _top_parser()
    words = _with_declared_spelling(words, parser)
    _, extra = parser.parse_known_args(words)
    if extra:
        raise _unexpected(extra, parser)
    parser.print_help(sys.stderr)
    return UserError.exit_status


def _top_parser() -> _Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in VERBS.items())
    parser = _Parser(
        prog="gpt2-jax",
        usage="gpt2-jax VERB [flags]",
        description="GPT-2 in JAX: prepare text, train, generate.",
        epilog=(
            f"verbs:\n{verbs}\n\nexamples:\n{_indented(_EXAMPLES)}\n\n"
            "`gpt2-jax VERB --help` shows a verb's flags. In flags, - and _ are the same."
        ),
    )
    parser.add_argument("--version", action="version", version=f"gpt2_jax {__version__}")
    return parser


def parse(name: str, verb: Verb, words: Sequence[str]) -> argparse.Namespace:
    """Parses the words after a verb into the namespace that `Verb.run` describes.

    Raises:
      UserError: for an unknown flag, a missing or superfluous value, or a value of a wrong type.
    """
    parser = _Parser(prog=f"gpt2-jax {name}", description=verb.HELP)
    verb.add_arguments(parser)
    overridable = "--config" in parser.flags()
    parser.epilog = f"examples:\n{_indented(verb.EXAMPLES)}"
    if overridable:
        parser.epilog = (
            "--config.SECTION.KEY=VALUE sets a knob of the config, as often as wanted.\n\n"
            + parser.epilog
        )
    words, overrides = _take_overrides(words) if overridable else (list(words), [])
    words = _with_declared_spelling(words, parser)
    args, extra = parser.parse_known_args(words)
    if extra:
        raise _unexpected(extra, parser)
    _check_paths(parser, args)
    if overridable:
        args.config_overrides = overrides
    return args


def _check_paths(parser: _Parser, args: argparse.Namespace) -> None:
    """Refuses paths that name nothing, and folders that are files or below one."""
    for action in parser.path_actions():
        flag, value = action.option_strings[0], getattr(args, action.dest)
        # As an unset shell variable gives; it would mean the current folder.
        if "" in (value if isinstance(value, list) else [value]):
            raise UserError(f"{flag} is empty: name a path")
        if action.metavar == "DIR" and isinstance(value, str):
            _refuse_files(flag, Path(value))


def _refuse_files(flag: str, folder: Path) -> None:
    if os.path.isfile(folder):
        raise UserError(f"{flag} {folder} is a file: name a folder")
    for above in folder.parents:
        if os.path.isfile(above):
            raise UserError(f"{flag} {folder}: {above} is a file; name a folder elsewhere")


def _before_dashes(words: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(index, name, rest) of each word that looks like a long flag; rest is empty or `=value`."""
    for index, word in enumerate(words):
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if _FLAG.fullmatch(name):
            yield index, name, equals + value


def _take_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits `--config.section.key=value` and `--config.section.key value` from the other words."""
    taken: set[int] = set()
    overrides: list[str] = []
    for index, name, rest in _before_dashes(words):
        if not name.startswith(_OVERRIDE):
            continue
        key = name.removeprefix(_OVERRIDE).replace("-", "_")
        taken.add(index)
        if not rest and index + 1 < len(words) and not words[index + 1].startswith("--"):
            taken.add(index + 1)
            rest = f"={words[index + 1]}"
        if not rest:
            raise UserError(f"{_OVERRIDE}{key} needs a value: {_OVERRIDE}{key}=VALUE")
        overrides.append(key + rest)
    return [word for index, word in enumerate(words) if index not in taken], overrides


def _with_declared_spelling(words: Sequence[str], parser: _Parser) -> list[str]:
    """Spells flags as declared (`--top-k` is `--top_k`) and refuses those that are not.

    Unknown flags are found before argparse looks, which would first complain of a required flag
    that the misspelled one was meant to be.
    """
    declared = {flag.replace("-", "_"): flag for flag in parser.flags()}
    result = list(words)
    for index, name, rest in _before_dashes(words):
        flag = declared.get(name.replace("-", "_"))
        if flag is not None:
            result[index] = flag + rest
        elif not re.search(r"\s", rest):
            # With a space in it, argparse takes the word for a value, as of `--prompt "--a=b c"`.
            raise _unknown(name, parser)
    return result


def _unexpected(extra: Sequence[str], parser: _Parser) -> UserError:
    """The error for words that argparse could not place."""
    words = [word for word in extra if word != "--"] or ["--"]
    if words[0].startswith("-") and extra[0] != "--":
        return _unknown(words[0].partition("=")[0], parser)
    return UserError(f"unexpected argument {words[0]!r} (see {parser.prog} --help)")


def _unknown(name: str, parser: _Parser) -> UserError:
    hint = did_you_mean(name, parser.flags())
    if not hint and "--config" in parser.flags():
        hint = _knob_hint(name.removeprefix("--").replace("-", "_"))
    hint = hint or f" (see {parser.prog} --help)"
    return UserError(f"unknown flag {name}{hint}")


def _knob_hint(name: str) -> str:
    """Names the knob that a flag `--batch_size` or `--train.batch_size` was meant to be."""
    from gpt2_jax.config import knobs  # not needed unless someone slips

    meant = [knob.key for knob in knobs() if name in (knob.key, knob.key.partition(".")[2])]
    return f"; did you mean '{_OVERRIDE}{meant[0]}'?" if meant else ""


def _report(error: BaseException, debug: bool) -> int:
    """Says what went wrong on standard error and returns the exit status."""
    if isinstance(error, Preempted):
        return _say(str(error), error.exit_status)
    if isinstance(error, Gpt2JaxError):
        return _say(f"error: {error}", error.exit_status)
    if isinstance(error, KeyboardInterrupt):
        return _say(f"interrupted: {error}" if str(error) else "interrupted", _INTERRUPTED)
    if isinstance(error, Terminated):
        return _say(f"terminated: {error}" if str(error) else "terminated", _TERMINATED)
    if isinstance(error, BrokenPipeError):
        # The reader, such as `head`, has left; else Python complains once more as it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    full = _disk_full(error)
    if full is not None:
        where = full.filename or "device"
        return _say(f"error: no space left on {where}", StorageError.exit_status)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "" if debug else " (run again with --debug for the traceback)"
    return _say(f"error: internal: {reason[:500]}{hint}", 1)


def _disk_full(error: BaseException | None) -> OSError | None:
    """The OSError behind `error` that says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and is_disk_full(error):
            return error
        error = error.__cause__ or error.__context__
    return None


def _say(message: str, status: int) -> int:
    print(" ".join(message.splitlines()), file=sys.stderr)
    return status


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
