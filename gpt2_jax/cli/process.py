"""Prepares the process of a verb: the output of libraries, and how SIGTERM ends it."""

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

# Environment variables that choose devices, or that machines with TPUs set.
_DEVICE_VARIABLES = ("JAX_PLATFORM", "JAX_FORCE_TPU", "PJRT_", "TPU_", "LIBTPU_", "CLOUD_TPU_")
# Device files of TPU drivers: up to v4, and from v5e.
_TPU_FILES = ("accel*", "vfio*")


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
    if importlib.util.find_spec("libtpu") and only_cpus(os.environ, Path("/dev")):
        os.environ["JAX_PLATFORMS"] = (
            "cpu"  # otherwise libtpu prints long warnings that it finds no TPU
        )
    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # Threads of Orbax may raise this after it has reported its failure.
        if str(raised.exc_value) != "Event loop is closed":
            shown(raised)

    sys.unraisablehook = hook


def only_cpus(environment: Mapping[str, str], devices: Path) -> bool:
    """Returns whether JAX can find no devices other than CPUs.

    That is so if JAX may use no others, or if neither `environment` nor the folder `devices` (/dev)
    indicates a TPU, and no plugin is installed, which JAX needs for any other kind of device.
    """
    if environment.get("JAX_PLATFORMS") == "cpu":
        return True
    variables = any(
        value and name.startswith(_DEVICE_VARIABLES) for name, value in environment.items()
    )
    files = any(path for pattern in _TPU_FILES for path in devices.glob(pattern))
    return not (variables or files or _has_plugins())


def _has_plugins() -> bool:
    """Returns whether a plugin of JAX is installed, in either of the ways JAX looks for them."""
    by_name = importlib.util.find_spec("jax_plugins")
    return bool(by_name or importlib.metadata.entry_points(group="jax_plugins"))


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
