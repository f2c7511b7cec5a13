"""The console command: finds the verb and runs it, turns failures into a line and a status.

A verb is a module `gpt2_jax.cli.<verb>` that offers what `verb.Verb` lists. Only the verb asked for
is imported, so that `--help` and a typo answer at once.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, cast

from gpt2_jax import __version__
from gpt2_jax.cli.process import quiet_libraries, sigterm_raises, stdout_is_ours
from gpt2_jax.cli.verb import Parser, Verb, indented, parse, unexpected, with_declared_spelling
from gpt2_jax.errors import (
    Gpt2JaxError,
    Preempted,
    StorageError,
    Terminated,
    UserError,
    did_you_mean,
    is_disk_full,
    no_room,
    say,
    shown,
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

# What a path may be that the user has named; that it is missing is said where it is looked for.
_NO_PATH = (
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EISDIR, errno.ENOTDIR),
)

# Whose errors are of a bucket, as far as the project knows of any: they share no base.
_BUCKET_LIBRARIES = ("aiohttp", "gcsfs", "google")

_LONGEST_LINE = 2000

# Beside the statuses in errors.py, what shells use: 128 + SIGINT, SIGPIPE and SIGTERM.
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143

# The trainer answers SIGTERM by saving. A plan has nothing to keep, and compiles for minutes in
# which no handler could run.
_OWN_SIGTERM = ("train", "plan")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, `sys.argv` by default, and returns its exit status (see errors.py)."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, debug = _take_debug(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal may lack a character, and a name of a file may be no text at all.
        sys.stdout.reconfigure(errors="backslashreplace")
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
    # At a usual exit Python waits for threads, as of a save that failed and waits for its disk, and
    # JAX for all other processes, to abort when they do not come: the status would be lost. Those
    # that run on are stopped by JAX or by the launcher.
    failed = status not in (0, Preempted.exit_status)
    at_once = failed and "gpt2_jax.parallel.distributed" in sys.modules
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # Python would try again, and end with a status of its own
        at_once = True
    if at_once:
        os._exit(status)
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
    words = with_declared_spelling(words, parser)
    _, extra = parser.parse_known_args(words)
    if extra:
        raise unexpected(extra, parser)
    parser.print_help(sys.stderr)
    return UserError.exit_status


def _top_parser() -> Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in VERBS.items())
    parser = Parser(
        prog="gpt2-jax",
        usage="gpt2-jax VERB [flags]",
        description="GPT-2 in JAX: prepare text, train, generate.",
        epilog=(
            f"verbs:\n{verbs}\n\nexamples:\n{indented(_EXAMPLES)}\n\n"
            "`gpt2-jax VERB --help` shows a verb's flags. In flags, - and _ are the same."
        ),
    )
    parser.add_argument("--version", action="version", version=f"gpt2_jax {__version__}")
    return parser


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
        return _say(f"error: {no_room(full)}", StorageError.exit_status)
    if isinstance(error, OSError) and error.errno in _NO_PATH and error.filename is not None:
        path = shown(os.fspath(error.filename))
        return _say(f"error: can't use {path}: {error.strerror}", UserError.exit_status)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if type(error).__module__.partition(".")[0] in _BUCKET_LIBRARIES:
        said = f"error: a bucket can't be read or written: {reason[:500]}; look at the network and "
        return _say(f"{said}the credentials, and run it again", StorageError.exit_status)
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
    line = " ".join(message.splitlines())
    if len(line) > _LONGEST_LINE:  # it quotes what a file holds, such as a name of a megabyte
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    say(line)
    return status
