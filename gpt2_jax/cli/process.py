"""Prepares the process of a verb: the output of libraries, and how SIGTERM ends it."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import types
from collections.abc import Iterator
from typing import Any, NoReturn

from gpt2_jax.errors import Terminated
from gpt2_jax.parallel.accelerators import only_cpus


def quiet_libraries() -> None:
    """Suppresses the messages of absl, asyncio, gcsfs and Orbax, and XLA's warnings.

    Call it before the verb is imported, because XLA reads its level once, when it is loaded.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.suppress(ImportError):  # `doctor` must run even if it is missing
        from absl import logging as absl  # imported here because it is slow to import

        absl.set_verbosity(absl.FATAL)
    # They would show the traceback of a failed save or read, which is reported in one line.
    for name in ("asyncio", "gcsfs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if importlib.util.find_spec("libtpu") and only_cpus(os.environ):
        os.environ["JAX_PLATFORMS"] = (
            "cpu"  # otherwise libtpu prints long warnings that it finds no TPU
        )
    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # Threads of Orbax may raise this after it has reported its failure.
        if str(raised.exc_value) != "Event loop is closed":
            shown(raised)

    sys.unraisablehook = hook


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM raise Terminated in the block; a second SIGTERM ends the process at once.

    If SIGTERM is ignored or has another handler, nothing is changed.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: types.FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # An exception in a callback, as during an import, is not propagated.
        if isinstance(raised.exc_value, Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        shown(raised)

    sys.unraisablehook = hook
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = shown


@contextlib.contextmanager
def only_python_prints() -> Iterator[None]:
    """Sends what C++ code writes to standard output in the block to standard error.

    Gloo writes there when processes connect. If `sys.stdout` is not file descriptor 1, because a
    caller has replaced it, nothing is changed.
    """
    outer = sys.stdout
    try:
        is_real = outer.fileno() == 1
    except OSError:  # it has no file descriptor
        is_real = False
    if not is_real:
        yield
        return
    outer.flush()
    with open(os.dup(1), "w", encoding=outer.encoding, errors=outer.errors) as python_output:
        os.dup2(2, 1)
        sys.stdout = python_output
        try:
            yield
        finally:
            sys.stdout = outer
            os.dup2(python_output.fileno(), 1)
