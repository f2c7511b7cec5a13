"""How a run is asked to stop: by SIGINT or SIGTERM, in one process of it or in all."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import types

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Turns SIGINT and SIGTERM into a question the loop asks after every step.

    Alone, a process stops after the step it is in, and a second signal ends it at once (the last
    checkpoint is whole). With others, all must stop after the same step: SIGTERM is left to JAX,
    which lets them agree on one, and SIGINT is sent on as SIGTERM; only SIGKILL is faster then.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._asked = 0
        self._signalled = threading.Event()
        answers = {signal.SIGINT: _send_sigterm}
        if self._alone:
            answers = dict.fromkeys((signal.SIGINT, signal.SIGTERM), _leave_to_listener)
            self._start_listening()
        self._previous = {
            number: signal.signal(number, answer) for number, answer in answers.items()
        }

    def requested(self) -> bool:
        """Whether to stop after this step; ask once a step, in every process."""
        if not self._alone:
            # JAX agrees on the number after the largest that any process has asked with, and waits
            # for exactly that one: before the first step of a resumed run, too, that must be 1.
            self._asked += 1
            return multihost_utils.reached_preemption_sync_point(self._asked)
        return self._signalled.is_set()

    def close(self) -> None:
        """Puts the previous signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._alone:
            signal.set_wakeup_fd(self._previous_wakeup)
            os.close(self._wakeup)
            self._listener.join()

    def _start_listening(self) -> None:
        """Python runs handlers in the main thread, which may be in C++ for the minutes of a step.

        The number of a signal is written to the wakeup descriptor at once, for a thread to read.
        """
        heard, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup)
        self._listener = threading.Thread(
            target=self._listen, args=(heard,), name="signals", daemon=True
        )
        self._listener.start()

    def _listen(self, heard: int) -> None:
        while number := os.read(heard, 1):
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            if self._signalled.is_set():
                os._exit(128 + number[0])
            self._signalled.set()
            name = signal.Signals(number[0]).name
            note = f"\n{name}: finishing the step and saving; again to stop at once\n"
            with contextlib.suppress(OSError):  # who read it may be gone by the same signal
                os.write(sys.stderr.fileno(), note.encode())
        os.close(heard)


def _leave_to_listener(number: int, frame: types.FrameType | None) -> None:
    """Without a handler in Python nothing is written to the wakeup descriptor."""


def _send_sigterm(number: int, frame: types.FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
