"""Runs the console command: finds the verb, and turns failures into a line and an exit status.

A verb is a module `gpt2_jax.cli.<verb>` that implements `verb.Verb`. Only the requested verb is
imported, so that `--help` and typos are answered at once.
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
from gpt2_jax.cli.huge_pages import restart_with_huge_pages
from gpt2_jax.cli.interrupts import interrupts_raise
from gpt2_jax.cli.process import only_python_prints, quiet_libraries, sigterm_raises
from gpt2_jax.cli.verb import Parser, Verb, indented, parse, unexpected, with_declared_spelling
from gpt2_jax.errors import (
    Gpt2JaxError,
    Preempted,
    StorageError,
    Terminated,
    UserError,
    did_you_mean,
    print_stderr,
    short_repr,
)
from gpt2_jax.files.disk_full import disk_full_message, is_disk_full
from gpt2_jax.parallel.variables import refused_variable

# The summaries in `gpt2-jax --help`; the --help of a verb begins with its HELP.
VERBS = {
    "prepare": "tokenize text into the shards that training reads",
    "plan": "predict memory, transfers, time and cost of a run on TPUs or GPUs",
    "train": "train a model, or resume a run",
    "sweep": "train the models of a sweep file, or resume a sweep",
    "sample": "generate text from a model",
    "inspect": "draw what a model does with a text, and write a lesson of it",
    "serve": "answer requests for text over HTTP",
    "eval": "score a model on LAMBADA, HellaSwag and others",
    "report": "compare the arms of a sweep, with intervals and verdicts",
    "convert": "write a model in another format",
    "doctor": "report on the installation and the devices, or on the checkpoints of a run",
}

_EXAMPLES = """\
gpt2-jax prepare --corpus python-stdlib --tokenizer byte --out runs/data/python-stdlib
gpt2-jax train --config configs/quickstart.py --workdir runs/quickstart
gpt2-jax sample --model runs/quickstart --prompt "def "
gpt2-jax doctor"""

# Errors of a path that the user named. A missing path is reported where it is read.
_PATH_ERRORS = (
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EISDIR, errno.ENOTDIR),
)

# Libraries whose errors concern a bucket; the errors have no common base class.
_BUCKET_LIBRARIES = ("aiohttp", "gcsfs", "google")

_MAX_LINE = 2000

# In addition to the statuses in errors.py, those of shells: 128 + SIGINT, SIGPIPE and SIGTERM.
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143

# The trainer saves on SIGTERM, and a sweep passes it on to its trainers. A plan has nothing to
# save, and compiles for minutes during which no handler could run.
_OWN_SIGTERM = ("train", "sweep", "plan")

# They allocate gigabytes in every step.
_ON_HUGE_PAGES = ("train", "eval")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, `sys.argv` by default, and returns its exit status (see errors.py)."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, debug = _take_debug(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal may not have a character, and a file name may not be valid Unicode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interrupts_raise():
            status = _dispatch(words, debug)
        # A closed pipe must be noticed here, because it cannot be handled while Python exits.
        sys.stdout.flush()
        return status
    except SystemExit as leaving:  # argparse's --help and --version
        return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except BaseException as error:
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        return _report(error, debug)


def console() -> NoReturn:
    """Runs the words of the command line and exits with their status."""
    words, _ = _take_debug(sys.argv[1:])
    if words and words[0] in _ON_HUGE_PAGES:
        restart_with_huge_pages()
    status = main()
    # At a normal exit Python waits for threads, such as a failed save that waits for its disk, and
    # JAX waits for all other processes and aborts if they do not come: the status would be lost.
    # The remaining processes are stopped by JAX or by the launcher.
    failed = status not in (0, Preempted.exit_status)
    exit_at_once = failed and "gpt2_jax.parallel.distributed" in sys.modules
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # Python would flush again, and exit with another status
        exit_at_once = True
    if exit_at_once:
        os._exit(status)
    sys.exit(status)


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """Removes `--debug`, which may be anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _dispatch(words: list[str], debug: bool) -> int:
    if words and not words[0].startswith("-"):
        name, rest = words[0], words[1:]
        if name not in VERBS:
            hint = did_you_mean(name, VERBS) or f"; the verbs are: {', '.join(VERBS)}"
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
                stack.enter_context(only_python_prints())
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
        description="Train, evaluate and sample GPT-2 models in JAX.",
        epilog=(
            f"verbs:\n{verbs}\n\nexamples:\n{indented(_EXAMPLES)}\n\n"
            "`gpt2-jax VERB --help` shows the flags of a verb. In flags, - and _ are the same."
        ),
    )
    parser.add_argument("--version", action="version", version=f"gpt2_jax {__version__}")
    return parser


def _report(error: BaseException, debug: bool) -> int:
    """Prints what went wrong on standard error and returns the exit status."""
    if isinstance(error, Preempted):
        return _print_line(str(error), error.exit_status)
    if isinstance(error, Gpt2JaxError):
        return _print_line(f"error: {error}", error.exit_status)
    if isinstance(error, KeyboardInterrupt):
        return _print_line(f"interrupted: {error}" if str(error) else "interrupted", _INTERRUPTED)
    if isinstance(error, Terminated):
        return _print_line(f"terminated: {error}" if str(error) else "terminated", _TERMINATED)
    if isinstance(error, BrokenPipeError):
        # The reader, such as `head`, has exited. Python would report it again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    if is_disk_full(error):
        return _print_line(f"error: {disk_full_message(error)}", StorageError.exit_status)
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        path = short_repr(os.fspath(error.filename))
        return _print_line(f"error: cannot use {path}: {error.strerror}", UserError.exit_status)
    if (refusal := refused_variable(error)) is not None:
        return _print_line(f"error: {refusal}", UserError.exit_status)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if type(error).__module__.partition(".")[0] in _BUCKET_LIBRARIES:
        message = (
            f"error: a bucket cannot be read or written: {reason[:500]}; check the network and "
        )
        return _print_line(f"{message}the credentials, and run it again", StorageError.exit_status)
    hint = "" if debug else " (run again with --debug for the traceback)"
    return _print_line(f"error: internal: {reason[:500]}{hint}", 1)


def _print_line(message: str, status: int) -> int:
    line = " ".join(message.splitlines())
    if len(line) > _MAX_LINE:  # it may quote a file, such as a name of a megabyte
        line = f"{line[: _MAX_LINE // 2]} ... {line[-_MAX_LINE // 2 :]}"
    print_stderr(line)
    return status
