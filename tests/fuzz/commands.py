"""Checks every case of a fuzz test: it must succeed, or end with a documented status and one line.

A usual run makes a third of the cases that the tests name, the same ones every time.
`GPT2_JAX_FUZZ=1` makes all of them and `GPT2_JAX_FUZZ=10` ten times as many, from random seeds.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from gpt2_jax.cli import main as cli

# The statuses of a refused command; signals and closed pipes end with 130 and 141.
REFUSED = (2, 75, 76, 77, 78)
_MAX_LINE = 2010  # characters

_TIMES = os.environ.get("GPT2_JAX_FUZZ")


def cases(count: int) -> settings:
    """Returns the settings of a test that makes `count` cases with `GPT2_JAX_FUZZ=1`."""
    return settings(
        max_examples=count // 3 if _TIMES is None else count * int(_TIMES),
        derandomize=_TIMES is None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def words() -> st.SearchStrategy[str]:
    """Returns words that a shell can pass: any bytes except NUL and, here, path separators."""
    names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20)
    other = st.binary(max_size=8).map(lambda some: os.fsdecode(some.translate(None, b"\0/")))
    return names | other | st.sampled_from(_AWKWARD)


_AWKWARD = (
    *("", " ", "-", "--", "---", "=", "--=", "-1", ".", "..", "*", "?", "[", "]", "%s", "{}", "~"),
    *("0", "1", "1e999", "-1e999", "nan", "inf", "1e-320", "1_000", "0x10", "٣", "½", "True"),
    *("none", "null", "true", "[]", "\n", "\r\n", "\x1b[31m", "\u2028", "'", '"', "\udcff"),
    *("9" * 18, "9" * 19, "9" * 30, "9" * 400, "9" * 5000, "-" + "9" * 5000, "x" * 300, "x" * 5000),
)


class Ended(NamedTuple):
    """Holds how a command ended, and what it printed."""

    status: int
    out: str
    err: str


def run(argv: Sequence[str]) -> Ended:
    """Runs a command line in this process, with its output encoded as for a terminal."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    hook = sys.unraisablehook  # each call of `main` wraps it once more
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(argv)
    finally:
        sys.unraisablehook = hook
    return Ended(status, _text(out), _text(err))


def ends_as_documented(argv: Sequence[str]) -> Ended:
    """Runs a command line, which must succeed or be refused in one line."""
    assume("--debug" not in argv)  # which prints a traceback
    ended = run(argv)
    # That a run is damaged or does not fit is the output of these verbs, not an error.
    reported = (argv[0], ended.status) in (("doctor", 78), ("plan", 1)) and ended.out
    if ended.status == 0 or reported:
        assert "error:" not in ended.err
    else:
        assert not ended.out
        _check_refusal(ended.status, ended.err)
    return ended


@contextlib.contextmanager
def refusal_or_success() -> Iterator[None]:
    """Checks that an exception of the block is one that the command line refuses in one line."""
    err = io.StringIO()
    try:
        yield
    except BaseException as error:
        with contextlib.redirect_stderr(err):
            status = cli._report(error, debug=False)
        if status not in REFUSED:
            raise
        _check_refusal(status, err.getvalue())


def _check_refusal(status: int, err: str) -> None:
    """Checks that the last line is the only error, and not that of a bug."""
    assert "error: internal" not in err, err
    assert status in REFUSED, (status, err)
    *other_lines, line = err.splitlines()
    assert line.startswith("error: ") and len(line) > len("error: ")
    assert not [other for other in other_lines if other.startswith(("error:", "Traceback"))], err
    # A character that cannot be printed is escaped with up to six.
    assert len(line) <= 6 * _MAX_LINE


def snapshot(folder: Path) -> dict[str, Any]:
    """Returns every path below a folder, with its size, time and mode."""
    stats = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns, stat.st_mode) for path, stat in stats.items()}


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
