"""Defines what a verb implements, and parses its flags strictly, in either spelling."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.files.paths import expand_home

_FLAG = re.compile(r"--[A-Za-z][\w.-]*")
_OVERRIDE = "--config."
_PATHS = ("DIR", "FILE", "PATH", "M")


class Verb(Protocol):
    """Defines what a module `gpt2_jax.cli.<verb>` implements."""

    HELP: str
    """The description in its --help: what the verb does."""
    EXAMPLES: str
    """The examples in its --help, one command per line."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the verb's flags, spelled with underscores."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit status.

        `args.debug` is always set. For a verb that declares `--config`, `args.config_overrides` is
        the list of its `--config.section.key=value` flags as `section.key=value`, in order.
        """
        ...


class Parser(argparse.ArgumentParser):
    """Parses flags like argparse, but raises errors as a UserError of one line."""

    def __init__(self, **settings: Any) -> None:
        """Declares --debug; `settings` are those of ArgumentParser."""
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self.add_argument("--debug", action="store_true", help="print the traceback of an error")
        self.words: Sequence[str] = ()  # what is being parsed, for hints

    def error(self, message: str) -> NoReturn:
        """Raises UserError with argparse's message."""
        match = re.match(r"argument (--\w+).*: expected (?:one|at least one) argument", message)
        if match and match[1] in self.words[:-1]:
            value = self.words[self.words.index(match[1]) + 1]
            if value.startswith("-"):
                value = shlex.quote(value)
                message += f"; for a value that begins with -, write {match[1]}={value}"
        raise UserError(f"{message} (see {self.prog} --help)")

    def path_actions(self) -> list[argparse.Action]:
        """Returns the flags that take a path, according to their metavar."""
        return [action for action in self._actions if action.metavar in _PATHS]

    def takes_value(self, flag: str) -> bool:
        """Returns whether a declared flag must be followed by a value."""
        return self._option_string_actions[flag].nargs not in (0, "?", "*")

    def takes_several(self, flag: str) -> bool:
        """Returns whether a declared flag takes a list of values."""
        return self._option_string_actions[flag].nargs in ("+", "*")

    def single_flags(self) -> list[str]:
        """Returns every long flag with a value of which only the last would be kept."""
        return [flag for flag in self.flags() if _is_stored(self._option_string_actions[flag])]

    def flags(self) -> list[str]:
        """Returns every long flag declared so far."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def _is_stored(action: argparse.Action) -> bool:
    return isinstance(action, argparse._StoreAction)


def make_parser(name: str, verb: Verb) -> Parser:
    """Returns the parser of a verb's flags, whose help is the verb's --help."""
    parser = Parser(prog=f"gpt2-jax {name}", description=verb.HELP)
    verb.add_arguments(parser)
    parser.epilog = f"examples:\n{indented(verb.EXAMPLES)}"
    if _is_overridable(parser):
        parser.epilog = (
            "--config.SECTION.KEY=VALUE overrides a knob of the config; it may be repeated.\n\n"
            + parser.epilog
        )
    return parser


def _is_overridable(parser: Parser) -> bool:
    return "--config" in parser.flags()


def parse(name: str, verb: Verb, words: Sequence[str]) -> argparse.Namespace:
    """Parses the words after a verb into the namespace that `Verb.run` describes.

    Raises:
      UserError: if a flag is unknown, or a value is missing, unexpected or of the wrong type.
    """
    parser = make_parser(name, verb)
    overridable = _is_overridable(parser)
    words, overrides = _take_overrides(words) if overridable else (list(words), [])
    words = with_declared_spelling(words, parser)
    _refuse_repeated(parser, words)
    parser.words = words
    args, extra = parser.parse_known_args(words)
    if extra:
        raise unexpected(extra, parser)
    _expand_homes(parser, args)
    _check_paths(parser, args)
    if overridable:
        args.config_overrides = overrides
    return args


def _refuse_repeated(parser: Parser, words: Sequence[str]) -> None:
    """Refuses a flag that is given twice, of which argparse would keep only the last value."""
    names = [name for _, name, _ in _before_dashes(words) if name in parser.flags()]
    for name in parser.single_flags():
        if names.count(name) > 1:
            several = parser.takes_several(name)
            fix = f"write all values after one {name}" if several else "give it once"
            raise UserError(f"{name} is given twice, and only the last would count: {fix}")


def _expand_homes(parser: Parser, args: argparse.Namespace) -> None:
    """Puts the home folder in place of a `~` at the start of every path."""
    for action in parser.path_actions():
        value, flag = getattr(args, action.dest), action.option_strings[0]
        if isinstance(value, str):
            setattr(args, action.dest, expand_home(value, flag))
        elif isinstance(value, list):
            setattr(args, action.dest, [expand_home(path, flag) for path in value])


def _check_paths(parser: Parser, args: argparse.Namespace) -> None:
    """Refuses empty paths, and folders that are files or inside of a file."""
    for action in parser.path_actions():
        flag, value = action.option_strings[0], getattr(args, action.dest)
        # An unset shell variable gives an empty path, which would mean the current folder.
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
    """Yields (index, name, rest) of each word like a long flag; rest is empty or `=value`."""
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


def with_declared_spelling(words: Sequence[str], parser: Parser) -> list[str]:
    """Returns the words with flags spelled as declared (`--top-k` is `--top_k`).

    Unknown flags are refused before argparse runs, which would otherwise report the required flag
    that a misspelled one was meant to be as missing.

    Raises:
      UserError: if a flag is unknown.
    """
    declared = {flag.replace("-", "_"): flag for flag in parser.flags()}
    result = list(words)
    for index, name, rest in _before_dashes(words):
        flag = declared.get(name.replace("-", "_"))
        if flag is not None:
            result[index] = flag + rest
        elif not re.search(r"\s", rest):
            # argparse takes a word with a space as a value, as in `--prompt "--a=b c"`.
            before = result[index - 1] if index else ""
            if before in parser.flags() and parser.takes_value(before):
                # As argparse says it of a word with one dash.
                parser.words = result
                parser.error(f"argument {before}: expected one argument")
            raise _unknown(name, parser)
    return result


def unexpected(extra: Sequence[str], parser: Parser) -> UserError:
    """Returns the error for words that argparse could not place."""
    words = [word for word in extra if word != "--"] or ["--"]
    if words[0].startswith("-") and extra[0] != "--":
        return _unknown(words[0].partition("=")[0], parser)
    return UserError(f"unexpected argument {words[0]!r} (see {parser.prog} --help)")


def _unknown(name: str, parser: Parser) -> UserError:
    hint = ""
    if "--config" in parser.flags():
        hint = _knob_hint(name.removeprefix("--").replace("-", "_"))
    hint = hint or did_you_mean(name, parser.flags())
    hint = hint or f" (see {parser.prog} --help)"
    return UserError(f"unknown flag {name}{hint}")


def _knob_hint(name: str) -> str:
    """Returns a hint at the knob that a flag such as `--batch_size` was meant to be."""
    from gpt2_jax.config import knobs  # imported only after a mistake
    from gpt2_jax.config.synonyms import ELSEWHERE, SYNONYMS

    keys = [knob.key for knob in knobs() if name in (knob.key, knob.key.partition(".")[2])]
    keys += [SYNONYMS[name]] if name in SYNONYMS else []
    if not keys and name in ELSEWHERE:
        return f"; did you mean {ELSEWHERE[name]}?"
    return f"; did you mean '{_OVERRIDE}{keys[0]}'?" if keys else ""


def indented(text: str) -> str:
    """Returns a text with every line indented, as --help shows examples."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
