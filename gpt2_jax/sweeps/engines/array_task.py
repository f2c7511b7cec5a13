"""What a task of a Slurm array runs: one point, whose status it writes.

`python -m gpt2_jax.sweeps.engines.array_task OUT LIST`: OUT is the folder of the sweep, and LIST a
file with the names of the points, of which SLURM_ARRAY_TASK_ID says which is meant. It is run by
launch/slurm/train.sbatch, which queues a single run again after the exit statuses that a restart
can help. For a point `attempts.judge` decides, and the task ends so that the script does the same.
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

from gpt2_jax.errors import NOT_JSON, Gpt2JaxError, PeersLost, UserError, print_stderr
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.sweeps.engines import attempts
from gpt2_jax.sweeps.folder import DONE, FINAL, SweepFolder

QUEUED_AGAIN = (75, 77, 134, 137, 143)
"""The exit statuses after which launch/slurm/train.sbatch queues a task again."""


def main(words: Sequence[str], train: Sequence[str] = attempts.TRAIN) -> int:
    """Runs the point and returns the exit status of the task.

    It is that of the point, except that a task which is to be queued again ends with one of
    `QUEUED_AGAIN` (77, if its own status is none of them), and one which is not does not (1).

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
        exit_status = attempts.shell_status(subprocess.call([*train, *flags]))
        # The first process knows what came before. Where it decides otherwise, its 1 prevails:
        # train.sbatch raises the statuses that end a job above all others.
        return _ending(exit_status, attempts.judge(exit_status, ())[1])
    return _run(folder, name, Path(listed).stem, [*train, *flags])


def _run(folder: SweepFolder, name: str, array: str, command: Sequence[str]) -> int:
    begun, began = attempts.begin(folder, name, array), time.monotonic()
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
        # train.sbatch limits how often a point may be preempted (MAX_RESTARTS).
        state, again = attempts.judge(exit_status, begun.earlier)
        seconds = time.monotonic() - began
        status = attempts.end(folder, name, begun, exit_status, state, log, seconds)
    print_stderr(f"{name} {status.state}: exit status {exit_status} {status.message}".rstrip())
    return _ending(exit_status, again)


def _ending(exit_status: int, again: bool) -> int:
    """Returns the exit status after which train.sbatch queues the task again, or ends it."""
    if again:
        return exit_status if exit_status in QUEUED_AGAIN else PeersLost.exit_status
    # A status above 128 would be hidden by that of another process.
    is_own = exit_status not in QUEUED_AGAIN and exit_status <= 128
    return exit_status if is_own else Gpt2JaxError.exit_status


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
