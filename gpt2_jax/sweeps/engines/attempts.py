"""Attempts at points: what each leaves in the folder of its point, and whether another follows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from gpt2_jax.errors import NumbersWentBad, PeersLost, Preempted, StorageError, shortened
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote
from gpt2_jax.parallel.run_info import VARIABLE, read_run_info
from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING, Status, SweepFolder

TRAIN = (sys.executable, "-m", "gpt2_jax", "train")
"""The command that trains, to which the flags of a point are added."""

_LONGEST_MESSAGE = 500
# After these, as after being killed, a restart may help.
_RETRIED = (PeersLost.exit_status, StorageError.exit_status)


def begin(folder: SweepFolder, name: str, start: str) -> Status:
    """Writes that an attempt at a point has begun, and returns its status.

    Args:
      folder: of the sweep.
      name: of the point.
      start: identifies the start of the sweep, or the array job, that the attempt belongs to.
    """
    before = folder.status(name)
    earlier: list[int] = []
    if before.start == start:
        earlier += before.earlier
        if before.exit_status is not None:
            earlier.append(before.exit_status)
    begun = dataclasses.replace(
        before,
        exit_status=None,
        state=WAITING,
        message="",
        attempts=before.attempts + 1,
        start=start,
        earlier=earlier,
    )
    folder.run_info(name).unlink(missing_ok=True)  # an earlier attempt's
    folder.write_status(name, begun)
    return begun


def end(
    folder: SweepFolder,
    name: str,
    begun: Status,
    exit_status: int,
    state: str,
    log: Path,
    seconds: float,
) -> Status:
    """Writes how an attempt has ended, and returns the status of its point.

    Args:
      folder: of the sweep.
      name: of the point.
      begun: what `begin` has returned.
      exit_status: of the command, as a shell reports it.
      state: of the point.
      log: what the command has printed.
      seconds: that the attempt took.
    """
    info = read_run_info(folder.run_info(name))
    status = dataclasses.replace(
        begun,
        exit_status=exit_status,
        state=state,
        message="" if state == DONE else last_line(log),
        seconds=round(begun.seconds + seconds, 3),
        programs_compiled=begun.programs_compiled + len(info.compiled),
        programs_loaded=begun.programs_loaded + len(info.loaded),
    )
    folder.write_status(name, status)
    return status


@contextlib.contextmanager
def open_log(folder: SweepFolder, name: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """Opens the log of a point to append to, as a path on a disk and a file.

    In a bucket, an object holds the output of the last attempt, and is written when that ends.
    """
    log = folder.point(name) / "log.txt"
    if not is_remote(log):
        with log.open("ab") as file:
            yield log, file
        return
    with tempfile.TemporaryDirectory() as place:
        local = Path(place) / "log.txt"
        with local.open("ab") as file:
            yield local, file
        write_file(log, local.read_bytes())


def variables(folder: SweepFolder, name: str) -> dict[str, str]:
    """Returns the environment variables of the command of a point."""
    return {VARIABLE: os.fspath(folder.run_info(name))}


def judge(
    exit_status: int,
    earlier: Sequence[int],
    *,
    stopping: bool = False,
    most_preemptions: int | None = None,
) -> tuple[str, bool]:
    """Returns the state of a point after an attempt, and whether another is to follow.

    This is the same for every engine, so that results do not depend on where points run. An attempt
    that something else has stopped (75) has saved, and another goes on from there. One that has
    lost a peer (77), could not save (78) or was killed is repeated, but not twice in a row.

    Args:
      exit_status: of the attempt, as a shell reports it.
      earlier: the exit statuses of the attempts before it that belong to the same start.
      stopping: whether the sweep was asked to stop, so that none is to follow.
      most_preemptions: after how many attempts that were stopped none follows; None for no limit.
    """
    if exit_status == Preempted.exit_status:
        count = 1 + list(earlier).count(exit_status)
        limited = most_preemptions is not None and count >= most_preemptions
        return WAITING, not (stopping or limited)
    if _is_retried(exit_status) and not (earlier and _is_retried(earlier[-1])):
        return WAITING, not stopping
    if stopping and _was_killed(exit_status):  # most likely because the sweep was asked to stop
        return WAITING, False
    if exit_status == 0:
        return DONE, False
    return (DIVERGED if exit_status == NumbersWentBad.exit_status else FAILED), False


def _is_retried(exit_status: int) -> bool:
    return exit_status in _RETRIED or _was_killed(exit_status)


def _was_killed(exit_status: int) -> bool:
    return exit_status > 128


def shell_status(code: int) -> int:
    """Returns an exit status of `subprocess`, negative for a signal, as a shell reports it."""
    return code if code >= 0 else 128 - code


def last_line(log: Path) -> str:
    """Returns the last line that a command has printed, without `error: ` at its start."""
    with contextlib.suppress(OSError):
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        return shortened(last.removeprefix("error: "), _LONGEST_MESSAGE)
    return ""
