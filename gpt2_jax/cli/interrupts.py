"""Ends a command with one line after Ctrl-C, from its first moment to its last.

Python's own handler raises KeyboardInterrupt wherever the process is. In an import that shows a
traceback, is lost in a callback, or leaves a half-initialized library that crashes. `__main__`
imports this module before everything else, so it imports nothing slow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

# Signals this close are one request: `timeout` sends one to the process and one to its group.
_SAME_REQUEST_SECONDS = 0.5
_REPEAT_SECONDS = 0.01


class Interrupts:
    """Handles SIGINT of a command.

    While the command starts or ends, and in every import, SIGINT ends the process at once with a
    line and 130: nothing is lost, because work begins after the imports. While a verb runs, it
    raises KeyboardInterrupt.

    Attributes:
      verb_runs: whether a verb runs.
    """

    def __init__(self) -> None:
        self.verb_runs = False
        self._last: float | None = None

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        """Handles a signal; one that belongs to the request before it does nothing."""
        now = time.monotonic()
        if self._last is not None and now - self._last < _SAME_REQUEST_SECONDS:
            return
        self._last = now
        if self.verb_runs and not _importing(frame):
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), b"interrupted\n")
        os._exit(128 + number)

    def repeat(self) -> None:
        """Handles the last signal again, soon, because its exception has been lost."""
        self._last = None
        threading.Thread(target=self._send_until_handled, daemon=True).start()

    def _send_until_handled(self) -> None:
        # Python notices one that comes right before a system call only when the call has ended.
        main = threading.main_thread().ident
        while True:
            time.sleep(_REPEAT_SECONDS)
            waits = self._last is None and self.verb_runs
            if main is None or not waits or signal.getsignal(signal.SIGINT) is not self:
                return
            signal.pthread_kill(main, signal.SIGINT)


def handle_interrupts() -> None:
    """Installs `Interrupts` for the rest of the process, unless SIGINT has a handler already.

    What a shell starts in the background ignores SIGINT, for example.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupts())


@contextlib.contextmanager
def interrupts_raise() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt in the block, except during an import.

    Where an exception is lost, as in a callback of the garbage collector, it is raised again.
    Afterwards the handler is the one before. If SIGINT has a handler that is neither Python's own
    nor `Interrupts`, nothing is changed.
    """
    before = signal.getsignal(signal.SIGINT)
    handle_interrupts()
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, Interrupts):
        yield
        return
    shown = sys.unraisablehook

    def hook(raised: Any) -> None:
        # In a callback, such as that of JAX at a garbage collection, the exception ends nothing.
        if isinstance(raised.exc_value, KeyboardInterrupt):
            handler.repeat()
        else:
            shown(raised)

    handler.verb_runs = True
    sys.unraisablehook = hook
    try:
        yield
    finally:
        handler.verb_runs = False
        signal.signal(signal.SIGINT, before)
        if sys.unraisablehook is hook:
            sys.unraisablehook = shown


def _importing(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
