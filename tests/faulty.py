"""The command as it is, but one of its processes meets a fault, once, as it makes a batch.

FAULT=PROCESS:BATCH:KIND, where KIND is a signal that the process sends itself, or `block`: then the
batch never comes. FAULT_MET is a file that does not exist before the fault, and does after it.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from gpt2_jax.cli.main import console
from gpt2_jax.data.loader import TrainLoader


def wait_for_a_disk_that_never_answers() -> None:
    threading.Event().wait()


def arm() -> None:
    process, batch, kind = os.environ["FAULT"].split(":")
    met = Path(os.environ["FAULT_MET"])
    if process != os.environ.get("JAX_PROCESS_ID", "0"):
        return
    make_rows = TrainLoader.rows

    def rows(self, step, row_indices):
        if step == int(batch) and not met.exists():
            met.touch()
            if kind == "block":
                wait_for_a_disk_that_never_answers()
            os.kill(os.getpid(), signal.Signals[kind])
        return make_rows(self, step, row_indices)

    TrainLoader.rows = rows


if __name__ == "__main__":
    arm()
    console()
