"""Runs a launcher's `main` in this process, for the tests that are not about the process itself."""

from __future__ import annotations

import contextlib
import importlib
import io
import signal
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

_LAUNCH = Path(__file__).parents[2] / "launch"


class Done(NamedTuple):
    """Holds how a launcher ended, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def launch(script: str, *words: str) -> Done:
    """Runs a launcher such as `gke/submit.py`; it must not start a command that writes output."""
    path = _LAUNCH / script
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folders = [str(path.parent), str(_LAUNCH)]
    try:
        with (
            mock.patch.object(sys, "path", [*folders, *sys.path]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = importlib.import_module(path.stem).main([str(word) for word in words])
    except SystemExit as leaving:
        status = leaving.code or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(int(status), out.getvalue(), err.getvalue())
