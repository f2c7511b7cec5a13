"""Ends a run that has come to a standstill, so that it can be started again.

A collective waits without an end for a peer that is stuck, and a read for a disk that is gone. JAX
only notices a peer without a heartbeat, and a supervisor can't tell waiting from work.
"""

from __future__ import annotations

import faulthandler
import os
import threading

import jax

from gpt2_jax.errors import PeersLost

_STDERR = 2
_LAST_WORDS_S = 10


class Watchdog:
    """Ends the process, with the stacks of its threads, when it has told of nothing new for long.

    The exit status is that of `PeersLost`. Nothing is saved: the run goes on from its newest
    checkpoint, as after a kill. Use it as a context manager.
    """

    def __init__(self, timeout_s: float) -> None:
        """Watches from now on; 0 seconds: does nothing.

        One limit does for steps and all else: a process waits in its step for whatever others do.
        """
        self._timeout_s = timeout_s
        self.doing("its start")
        self._closed = threading.Event()
        # Asked now: when the time has come, nothing is certain to answer.
        count = jax.process_count()
        self._name = "this process" if count == 1 else f"process {jax.process_index()} of {count}"
        if timeout_s > 0:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def doing(self, what: str) -> None:
        """Tells that the run has got as far as `what`, such as `step 17`."""
        self._latest = (what,)  # an object of its own, by which the thread knows it

    def __enter__(self) -> Watchdog:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Watches no longer."""
        self._closed.set()

    def _watch(self) -> None:
        # Ticks are counted rather than a clock read: while the machine sleeps, or the process is
        # stopped, there are none.
        tick_s = min(1.0, self._timeout_s / 10)
        heard, silent_s = self._latest, 0.0
        while not self._closed.wait(tick_s):
            latest = self._latest
            silent_s = silent_s + tick_s if latest is heard else 0.0
            heard = latest
            if silent_s >= self._timeout_s:
                self._end(*latest)

    def _end(self, what: str) -> None:
        status = PeersLost.exit_status
        # Whoever should read standard error may be what the run waits for.
        last_resort = threading.Timer(_LAST_WORDS_S, os._exit, [status])
        last_resort.daemon = True
        last_resort.start()
        os.write(_STDERR, b"\nno progress; where each thread is:\n")
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        line = (
            f"error: {self._name} got no further than {what} in {self._timeout_s:g} s: start the "
            "run again, all of its processes, to go on from its newest checkpoint; if it is slow "
            "rather than hung, raise --config.train.hang_timeout"
        )
        os.write(_STDERR, f"{line}\n".encode())
        os._exit(status)
