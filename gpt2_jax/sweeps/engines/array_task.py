"""What a task of a Slurm array runs: one point, whose status it writes.

`python -m gpt2_jax.sweeps.engines.array_task OUT LIST`: OUT is the folder of the sweep, and LIST a
file with the names of the points, of which SLURM_ARRAY_TASK_ID says which is meant. It is run by
launch/slurm/train.sbatch, which queues the task again after the statuses that a restart can help.
If a point is trained by several processes, each of them runs this, and the first writes the status.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON, Gpt2JaxError, PeersLost, Preempted, UserError, print_stderr
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.sweeps.engines import attempts
from gpt2_jax.sweeps.folder import DONE, FINAL, WAITING, Status, SweepFolder

# After these, and after being killed, a restart may help, but not twice in a row.
_RETRIED = (PeersLost.exit_status,)


def main(words: Sequence[str], train: Sequence[str] = attempts.TRAIN) -> int:
    """Runs the point and returns its exit status, or 1 if the task is not to be queued again.

    Args:
      words: those of the command line.
      train: the command that trains a point.

    Raises:
      UserError: if the list or the point cannot be read.
    """
    out, listed = words
    folder = SweepFolder(resolve_path(out, "--out"))
    names = _read(resolve_path(listed)).get("points", [])
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "-1"))
    if not 0 <= index < len(names):
        raise UserError(f"SLURM_ARRAY_TASK_ID={index} is none of the {len(names)} of {listed}")
    name = names[index]
    flags = shlex.split(str(_read(folder.point(name) / "point.json").get("command")))[2:]
    # Slurm signals this process and the command, which saves. This one stays to write its status.
    signal.signal(signal.SIGTERM, lambda *_: None)
    before = folder.status(name)
    if before.state in FINAL:  # the task was queued again after it had ended
        return 0 if before.state == DONE else before.exit_status or 0
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return attempts.shell_status(subprocess.call([*train, *flags]))
    return _run(folder, name, before, [*train, *flags])


def _run(folder: SweepFolder, name: str, before: Status, command: Sequence[str]) -> int:
    begun, began = attempts.begin(folder, name), time.monotonic()
    with attempts.open_log(folder, name) as (log, file):
        environment = {**os.environ, **attempts.variables(folder, name)}
        code = subprocess.call(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        exit_status = attempts.shell_status(code)
        state, again = attempts.state_after(exit_status), exit_status == Preempted.exit_status
        if _may_be_retried(exit_status) and not _may_be_retried(before.exit_status or 0):
            state, again = WAITING, True
        seconds = time.monotonic() - began
        status = attempts.end(folder, name, begun, exit_status, state, log, seconds)
    print_stderr(f"{name} {status.state}: exit status {exit_status} {status.message}".rstrip())
    retried = _may_be_retried(exit_status) and not again
    return Gpt2JaxError.exit_status if retried else exit_status


def _may_be_retried(exit_status: int) -> bool:
    return exit_status in _RETRIED or exit_status > 128


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        assert isinstance(values, dict)
        return values
    except (*NOT_JSON, AssertionError) as error:
        raise UserError(f"cannot read {path} ({error}): start the sweep again") from error


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Gpt2JaxError as error:
        print_stderr(f"error: {error}")
        sys.exit(error.exit_status)
