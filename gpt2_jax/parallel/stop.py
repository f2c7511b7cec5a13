"""Handles requests to stop a run: SIGINT or SIGTERM, in one of its processes or in all."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types

import jax
from jax.experimental import multihost_utils

# Signals this close are one request: `timeout` sends one to the process and one to its group.
SAME_REQUEST_SECONDS = 0.5


class StopRequest:
    """Records SIGINT and SIGTERM, for the loop to check after every step.

    A run of one process stops after its current step, and a second request ends it at once (the
    last checkpoint is complete). Signals within half a second of the first are the same request.
    The processes of a larger run must stop after the same step: JAX handles SIGTERM and chooses a
    step for all, and SIGINT is forwarded as SIGTERM; only SIGKILL is faster.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._polls = 0
        self._signalled = threading.Event()
        self._saved: int | None = None  # the step of the newest checkpoint
        handlers = {signal.SIGINT: _send_sigterm}
        if self._alone:
            handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM), _leave_to_listener)
            self._start_listening()
        self._previous = {
            number: signal.signal(number, handler) for number, handler in handlers.items()
        }

    def requested(self) -> bool:
        """Returns whether to stop after this step; call it once per step in every process."""
        if not self._alone:
            # JAX chooses the number after the largest that any process has passed, and waits for
            # exactly that one. So the numbers start from 1 in a resumed run, too.
            self._polls += 1
            return multihost_utils.reached_preemption_sync_point(self._polls)
        return self._signalled.is_set()

    def note_saved(self, step: int) -> None:
        """Takes the step of the newest checkpoint, which a request to end at once names."""
        self._saved = step

    def close(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._alone:
            signal.set_wakeup_fd(self._previous_wakeup)
            os.close(self._wakeup)
            self._listener.join()

    def _start_listening(self) -> None:
        """Starts a thread that reads the numbers of signals.

        Python runs handlers in the main thread, which may be in C++ for the minutes of a step, but
        writes the number of a signal to the wakeup descriptor at once.
        """
        receiver, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup)
        self._listener = threading.Thread(
            target=self._listen, args=(receiver,), name="signals", daemon=True
        )
        self._listener.start()

    def _listen(self, receiver: int) -> None:
        first = 0.0  # when the run was asked to stop
        while number := os.read(receiver, 1):
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            name = signal.Signals(number[0]).name
            if not self._signalled.is_set():
                first = time.monotonic()
                self._signalled.set()
                _write_line(f"{name}: finishing the step and saving; again to stop at once")
            elif time.monotonic() - first >= SAME_REQUEST_SECONDS:
                since = "" if self._saved is None else f" since step {self._saved}"
                _write_line(f"{name}: stopped at once; nothing was saved{since}")
                os._exit(128 + number[0])
        os.close(receiver)


def _write_line(text: str) -> None:
    """Writes a line on standard error from any thread, below what the terminal shows of Ctrl-C."""
    with contextlib.suppress(OSError):  # the reader may have ended by the same signal
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())


def _leave_to_listener(number: int, frame: types.FrameType | None) -> None:
    """Does nothing; without a handler in Python, the wakeup descriptor gets no number."""


def _send_sigterm(number: int, frame: types.FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
