"""Ends a run that makes no progress, so that it can be started again.

A collective waits forever for a peer that is stuck, and a read for a disk that no longer answers.
JAX notices only peers whose heartbeat stops, and a supervisor cannot tell waiting from working.
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
    """Ends the process, and shows the stacks of its threads, when it has not reported for long.

    The exit status is that of `PeersLost`. Nothing is saved: the run resumes from its newest
    checkpoint, as after a kill. Use it as a context manager.
    """

    def __init__(self, timeout_s: float) -> None:
        """Starts to watch; with 0 seconds it does nothing.

        The same limit applies to steps, saves and validations, because a process waits in its step
        for whatever the others do.
        """
        self._timeout_s = timeout_s
        self.report("its start")
        self._closed = threading.Event()
        # Asked now, because later the runtime may be what hangs.
        count = jax.process_count()
        self._name = "this process" if count == 1 else f"process {jax.process_index()} of {count}"
        if timeout_s > 0:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def report(self, activity: str) -> None:
        """Reports progress: the run now begins `activity`, such as `step 17`."""
        self._latest = (activity,)  # a new object, which the thread tells from the last by identity

    def __enter__(self) -> Watchdog:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops watching."""
        self._closed.set()

    def _watch(self) -> None:
        # Counts ticks rather than reading a clock: while the machine sleeps, or the process is
        # stopped, there are none.
        tick_s = min(1.0, self._timeout_s / 10)
        last, silent_s = self._latest, 0.0
        while not self._closed.wait(tick_s):
            latest = self._latest
            silent_s = silent_s + tick_s if latest is last else 0.0
            last = latest
            if silent_s >= self._timeout_s:
                self._end_process(*latest)

    def _end_process(self, activity: str) -> None:
        status = PeersLost.exit_status
        # Writing to standard error can hang, too, if whoever reads it is what the run waits for.
        last_resort = threading.Timer(_LAST_WORDS_S, os._exit, [status])
        last_resort.daemon = True
        last_resort.start()
        os.write(_STDERR, b"\nno progress; the stacks of all threads:\n")
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        line = (
            f"error: {self._name} got no further than {activity} in {self._timeout_s:g} s: start "
            "the run again, all of its processes, to resume from its newest checkpoint; if it is "
            "slow rather than hung, raise --config.train.hang_timeout"
        )
        os.write(_STDERR, f"{line}\n".encode())
        os._exit(status)
