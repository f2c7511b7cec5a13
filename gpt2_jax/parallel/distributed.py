"""Process start-up, who writes, and how a run is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import types

import jax
from jax.experimental import multihost_utils

from gpt2_jax.errors import UserError


def initialize() -> None:
    """Joins this process to the others of the run; call it before anything else touches a device.

    Does nothing unless `JAX_COORDINATOR_ADDRESS` is set. `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`
    go with it, unless the cluster is of a kind that JAX asks for them.

    Raises:
      UserError: if one of them is not a number.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        jax.distributed.initialize(address, _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID"))


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise UserError(f"{name} in the environment must be a whole number, not {text!r}")
    return None if text is None else int(text)


def is_primary() -> bool:
    """Whether this process is the one that logs and writes shared files."""
    return jax.process_index() == 0


class StopRequest:
    """Turns SIGINT and SIGTERM into a question the loop asks after every step.

    Alone, a process stops after the step it is in, and a second signal ends it at once (the last
    checkpoint is whole). With others, all must stop after the same step: SIGTERM is left to JAX,
    which lets them agree on one, and SIGINT is sent on as SIGTERM.
    """

    def __init__(self) -> None:
        self._signalled = False
        alone = jax.process_count() == 1
        handlers = {signal.SIGINT: self._handle} if alone else {signal.SIGINT: _send_sigterm}
        if alone:
            handlers[signal.SIGTERM] = self._handle
        self._previous = {
            number: signal.signal(number, handler) for number, handler in handlers.items()
        }

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; ask once a step, in every process."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._signalled

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self._signalled:
            os._exit(128 + number)
        self._signalled = True
        # os.write, because a signal may interrupt a print to the same stream.
        name = signal.Signals(number).name
        note = f"\n{name}: finishing the step and saving; again to stop at once\n"
        os.write(sys.stderr.fileno(), note.encode())

    def close(self) -> None:
        """Puts the previous signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _send_sigterm(number: int, frame: types.FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
