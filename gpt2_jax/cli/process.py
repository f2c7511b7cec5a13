"""The process that a verb runs in: what libraries may say and where, and how SIGTERM ends it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from gpt2_jax.errors import Terminated

# What says which devices to use, and what machines with TPUs set.
_DEVICES_SAID = ("JAX_PLATFORM", "JAX_FORCE_TPU", "PJRT_", "TPU_", "LIBTPU_", "CLOUD_TPU_")
# Of the drivers of TPUs: up to v4, and from v5e on.
_TPU_FILES = ("accel*", "vfio*")


def quiet_libraries() -> None:
    """Keeps absl's, asyncio's and Orbax's chatter, and XLA's warnings in C++, out of the terminal.

    Call it before the verb is imported: XLA reads its level from the environment once, as it loads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.suppress(ImportError):  # `doctor` runs whatever is missing
        from absl import logging as absl  # here: it takes as long to import as all else above

        absl.set_verbosity(absl.FATAL)
    # Of a save that failed, which is reported as one, it shows the traceback too.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if importlib.util.find_spec("libtpu") and only_cpus(os.environ, Path("/dev")):
        os.environ["JAX_PLATFORMS"] = "cpu"  # else libtpu tells at length that it finds no TPU
    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # What threads of Orbax's still find to say after it has reported its failure.
        if str(raised.exc_value) != "Event loop is closed":
            shown(raised)

    sys.unraisablehook = hook


def only_cpus(environment: Mapping[str, str], devices: Path) -> bool:
    """Whether JAX could find nothing but CPUs, whatever it tried.

    So it is where neither `environment` nor the folder `devices` (/dev) tells of a TPU, and there
    is no plugin, which JAX needs for devices of any other kind.
    """
    said = any(value and name.startswith(_DEVICES_SAID) for name, value in environment.items())
    files = any(path for pattern in _TPU_FILES for path in devices.glob(pattern))
    return not (said or files or _has_plugins())


def _has_plugins() -> bool:
    """Whether there is a plugin of JAX, in either of the ways in which it looks for them."""
    by_name = importlib.util.find_spec("jax_plugins")
    return bool(by_name or importlib.metadata.entry_points(group="jax_plugins"))


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises Terminated in the block, and ends the process at once when it comes again.

    Where SIGTERM is ignored or answered otherwise, that is left as it is.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: types.FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # What is raised in a callback, such as those of an import, goes no further.
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
def stdout_is_ours() -> Iterator[None]:
    """In the block only Python writes to standard output; what C++ writes goes to standard error.

    Gloo does so when processes connect. Where `sys.stdout` is not file descriptor 1, as when a
    caller has captured it, nothing is changed.
    """
    outer = sys.stdout
    try:
        is_real = outer.fileno() == 1
    except OSError:  # it has none
        is_real = False
    if not is_real:
        yield
        return
    outer.flush()
    with open(os.dup(1), "w", encoding=outer.encoding, errors=outer.errors) as ours:
        os.dup2(2, 1)
        sys.stdout = ours
        try:
            yield
        finally:
            sys.stdout = outer
            os.dup2(ours.fileno(), 1)
