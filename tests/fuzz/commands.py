"""What every case is held to: a documented exit status and one line, or success; nothing else.

A usual run repeats the same cases. `GPT2_JAX_FUZZ=10` makes ten times as many, from random seeds.
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

# Of a command that could not be done; 130 and 141 are what signals and closed pipes end with.
REFUSED = (2, 75, 76, 77, 78)
_LONGEST_LINE = 2010  # characters

_TIMES = int(os.environ.get("GPT2_JAX_FUZZ", "1"))


def cases(count: int) -> settings:
    """The settings of a test of so many cases in a usual run."""
    return settings(
        max_examples=count * _TIMES,
        derandomize=_TIMES == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def words() -> st.SearchStrategy[str]:
    """What a shell can pass on as a word: bytes, UTF-8 or not, but NUL; here without separators."""
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
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def run(argv: Sequence[str]) -> Ended:
    """Runs a command line in this process, its output encoded as a terminal's would be."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    hook = sys.unraisablehook  # each call of `main` puts one more before it
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(argv)
    finally:
        sys.unraisablehook = hook
    return Ended(status, _text(out), _text(err))


def ends_as_documented(argv: Sequence[str]) -> Ended:
    """Runs a command line, which must be done, or refused in one line."""
    assume("--debug" not in argv)  # which asks for a traceback
    ended = run(argv)
    # What doctor has to say of a run is its report, whatever the run is like.
    reported = argv[0] == "doctor" and ended.status == 78 and ended.out
    if ended.status == 0 or reported:
        assert "error:" not in ended.err
    else:
        assert not ended.out
        _check_refusal(ended.status, ended.err)
    return ended


@contextlib.contextmanager
def refusal_or_success() -> Iterator[None]:
    """What the block raises must be what the command line refuses in one line."""
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
    """One line for people, the last, after what was said on the way; no bug's."""
    assert "error: internal" not in err, err
    assert status in REFUSED, (status, err)
    *said, line = err.splitlines()
    assert line.startswith("error: ") and len(line) > len("error: ")
    assert not [other for other in said if other.startswith(("error:", "Traceback"))], err
    # What cannot be printed takes up to six characters.
    assert len(line) <= 6 * _LONGEST_LINE


def contents(folder: Path) -> dict[str, Any]:
    """Every path below a folder, with its size and time."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_mode)
    return found


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
