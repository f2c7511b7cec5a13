"""Process start-up, who writes, and how a run is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import types

import jax


def initialize() -> None:
    """Joins this process to the others of the run; call it before anything else touches a device.

    Does nothing unless `JAX_COORDINATOR_ADDRESS` is set (with `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`, unless the cluster is of a kind that JAX asks for them).
    """
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        jax.distributed.initialize()


def is_primary() -> bool:
    """Whether this process is the one that logs and writes shared files."""
    return jax.process_index() == 0


class StopRequest:
    """Turns SIGINT and SIGTERM into a question the loop asks between steps.

    The first signal sets `requested`; a second one ends the process at once (the last checkpoint is
    whole).
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        # os.write, because a signal may interrupt a print to the same stream.
        name = signal.Signals(number).name
        note = f"\n{name}: finishing the step and saving; again to stop at once\n"
        os.write(sys.stderr.fileno(), note.encode())

    def close(self) -> None:
        """Puts the previous signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
