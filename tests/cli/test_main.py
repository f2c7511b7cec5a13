"""Tests the command line: verbs, flags, overrides, and the message of each failure."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from gpt2_jax import __version__
from gpt2_jax.cli import main as cli
from gpt2_jax.errors import NumbersWentBad, Preempted, StorageError, Terminated, UserError

Run = Callable[[argparse.Namespace], int]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--prompt")
    parser.add_argument("--stop", nargs="+")
    parser.add_argument("--dry_run", action="store_true")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Makes a verb `train` that keeps its arguments in `.args`; tests may replace `.run`."""
    module = types.SimpleNamespace(
        HELP="Train.", EXAMPLES="gpt2-jax train --workdir w", add_arguments=_add_arguments
    )

    def run(args: argparse.Namespace) -> int:
        module.args = args
        return 0

    module.run = run
    monkeypatch.setitem(sys.modules, "gpt2_jax.cli.train", module)  # type: ignore[arg-type]
    return module


def _parsed(verb: Any, *words: str) -> argparse.Namespace:
    assert cli.main(["train", "--workdir", "w", *words]) == 0
    return verb.args


def _error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the only line on standard error of a command that ends with status 2."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_dashes_and_underscores_are_the_same_in_flags(verb: Any) -> None:
    assert _parsed(verb, "--top-k", "3").top_k == 3
    assert _parsed(verb, "--top-k=4", "--dry-run").top_k == 4
    assert _parsed(verb, "--top_k=5", "--dry_run").dry_run


@pytest.mark.parametrize("value", ["a-b_c", "--top-k is a flag", "--no-such=x y", "-1", "a=--b-c"])
def test_values_are_never_touched(verb: Any, value: str) -> None:
    assert _parsed(verb, f"--prompt={value}").prompt == value
    if value != "-1":
        assert _parsed(verb, "--prompt", value).prompt == value


def test_values_after_a_double_dash_are_never_touched(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "unexpected argument '--top-k'" in _error(
        capsys, "train", "--workdir", "w", "--", "--top-k"
    )


def test_overrides_are_collected_in_order(verb: Any) -> None:
    args = _parsed(
        verb,
        "--config.model.num-layers=2",
        "--dry_run",
        "--config.train.seed",
        "-1",
        "--config",
        "c.py",
        "--config.train.init_from=some-run/x=y",
        "--config.model.num_layers",
        "3",
    )
    assert args.config_overrides == [
        "model.num_layers=2",
        "train.seed=-1",
        "train.init_from=some-run/x=y",
        "model.num_layers=3",
    ]
    assert args.dry_run
    assert args.config == "c.py"
    assert _parsed(verb).config_overrides == []


def test_an_override_without_a_value_says_so(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for rest in (["--config.train.seed"], ["--config.train.seed", "--dry_run"]):
        assert "--config.train.seed=VALUE" in _error(capsys, "train", "--workdir", "w", *rest)


def test_overrides_need_a_verb_with_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown flag --config.train.seed" in _error(capsys, "doctor", "--config.train.seed=1")


def test_mistakes_are_one_line_with_a_hint(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'train'?" in _error(capsys, "trian")
    assert "the verbs are: prepare, plan, train" in _error(capsys, "xyzzy")
    # Before --workdir is missed: the misspelled flag is the mistake.
    assert "did you mean '--workdir'?" in _error(capsys, "train", "--workdri", "w")
    assert "unknown flag --work" in _error(capsys, "train", "--work", "w")  # no abbreviations
    assert "required: --workdir" in _error(capsys, "train")
    assert "invalid int value: 'x'" in _error(capsys, "train", "--workdir=w", "--top-k=x")
    assert "unexpected argument 'extra'" in _error(capsys, "train", "--workdir=w", "extra")
    assert "did you mean '--version'?" in _error(capsys, "--versoin")


def test_help_shows_examples_on_both_levels(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert all(name in out for name in cli.VERBS)
    assert "examples:\n  gpt2-jax prepare" in out
    assert cli.main(["train", "--help"]) == 0
    out, err = capsys.readouterr()
    assert "examples:\n  gpt2-jax train" in out
    assert "--config.SECTION.KEY=VALUE" in out
    assert not err


def test_version_and_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpt2_jax {__version__}\n"
    assert cli.main([]) == 2
    assert "verbs:" in capsys.readouterr().err


def _failing(error: BaseException) -> Run:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("repair it\nlike this"), 2, "error: repair it like this"),
        (Preempted("saved step 7; start again"), 75, "saved step 7; start again"),
        (NumbersWentBad("loss is nan"), 76, "error: loss is nan"),
        (StorageError("cannot save"), 78, "error: cannot save"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated("one half is kept"), 143, "terminated: one half is kept"),
        (
            OSError(errno.ENOSPC, "No space", "/data/x"), 78,
            "error: no space left on /data/x: make room and run the same command again",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), 2,
            f"error: cannot use '{'x' * 76}...: File name too long",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 2,
         "error: cannot use '/data/x': Permission denied"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/x"), 1,
            "error: internal: FileNotFoundError: [Errno 2] No such file: '/x' (run again with "
            "--debug for the traceback)",
        ),
        (UserError(f"{'x' * 10**6}: fix it"), 2, f"error: {'x' * 993} ... {'x' * 992}: fix it"),
        (
            type("HttpError", (Exception,), {"__module__": "gcsfs.retry"})("503"), 78,
            "error: a bucket cannot be read or written: HttpError: 503; check the network and the "
            "credentials, and run it again",
        ),
        (
            KeyError("x"),
            1,
            "error: internal: KeyError: 'x' (run again with --debug for the traceback)",
        ),
    ],
)  # fmt: skip
def test_failures_are_one_line_and_a_status(
    verb: Any, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    verb.run = _failing(error)
    assert cli.main(["train", "--workdir", "w"]) == status
    assert capsys.readouterr().err == line + "\n"
    for words in (["--debug", "train", "--workdir", "w"], ["train", "--workdir", "w", "--debug"]):
        assert cli.main(words) == status
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert err.endswith(line.partition(" (run again")[0] + "\n")


@pytest.mark.parametrize("word", ["--batch_size=4", "--train.batch-size=4"])
def test_a_knob_without_its_config_is_recognized(
    verb: Any, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert cli.main(["train", "--config", "c.py", word]) == 2
    assert "did you mean '--config.train.batch_size'?" in capsys.readouterr().err


def test_what_threads_say_after_a_failure_is_dropped_and_no_more() -> None:
    code = """
import sys, types
from gpt2_jax.cli.process import quiet_libraries
sys.unraisablehook = lambda raised: print(raised.exc_value)
quiet_libraries()
for text in ("Event loop is closed", "something else"):
    sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "something else\n"


def test_a_full_disk_is_found_behind_another_error(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ValueError("save failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space")
    verb.run = _failing(error)
    assert cli.main(["train", "--workdir", "w"]) == 78
    assert (
        capsys.readouterr().err
        == "error: no space left on the disk: make room and run the same command again\n"
    )


def test_the_status_is_right_where_nothing_can_be_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "gpt2_jax", "bogus"], stderr=full)
    assert done.returncode == 2


def test_a_thread_that_never_ends_does_not_keep_a_failed_command_from_ending() -> None:
    code = """
import sys, threading
import gpt2_jax.parallel.distributed
from gpt2_jax.cli.main import console
threading.Thread(target=threading.Event().wait).start()
sys.argv = ["gpt2-jax", "bogus"]
console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown verb 'bogus'")


def test_a_name_that_is_no_text_is_printed_all_the_same() -> None:
    code = """
import sys, types
from gpt2_jax.cli import main as cli
run = lambda args: print(args.workdir) or 0
sys.modules["gpt2_jax.cli.train"] = types.SimpleNamespace(
    HELP="", EXAMPLES="", add_arguments=lambda parser: parser.add_argument("--workdir"), run=run
)
sys.exit(cli.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "train", "--workdir", b"w\xff\xc3\xa9"]
    settings = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=os.environ | settings, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"w\\udcff\\xe9\n", b"")


def test_debug_reaches_the_verb(verb: Any) -> None:
    assert _parsed(verb).debug is False
    assert _parsed(verb, "--debug").debug is True


def test_a_status_of_the_verb_is_the_status(verb: Any) -> None:
    verb.run = lambda args: 75
    assert cli.main(["train", "--workdir", "w"]) == 75


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = """
import sys, types
from gpt2_jax.cli import main as cli
def run(args):
    for _ in range(100000): print("x" * 100)
    return 0
sys.modules["gpt2_jax.cli.train"] = types.SimpleNamespace(
    HELP="", EXAMPLES="", add_arguments=lambda parser: None, run=run)
sys.exit(cli.main(["train"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 141
