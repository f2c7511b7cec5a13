"""Attempts at points: what an attempt leaves in the folder of its point when it begins and ends."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gpt2_jax.errors import NumbersWentBad, Preempted, shortened
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote
from gpt2_jax.parallel.run_info import VARIABLE, read_run_info
from gpt2_jax.sweeps.folder import DIVERGED, DONE, FAILED, WAITING, Status, SweepFolder

TRAIN = (sys.executable, "-m", "gpt2_jax", "train")
"""The command that trains, to which the flags of a point are added."""

_LONGEST_MESSAGE = 500


def begin(folder: SweepFolder, name: str) -> Status:
    """Writes that an attempt at a point has begun, and returns its status."""
    before = folder.status(name)
    begun = Status(
        None,
        WAITING,
        "",
        before.seconds,
        before.attempts + 1,
        before.programs_compiled,
        before.programs_loaded,
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
    status = Status(
        exit_status,
        state,
        "" if state == DONE else last_line(log),
        round(begun.seconds + seconds, 3),
        begun.attempts,
        begun.programs_compiled + len(info.compiled),
        begun.programs_loaded + len(info.loaded),
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


def state_after(exit_status: int) -> str:
    """Returns the state of a point after an exit status, if the point is not started again."""
    if exit_status == 0:
        return DONE
    if exit_status == NumbersWentBad.exit_status:
        return DIVERGED
    return WAITING if exit_status == Preempted.exit_status else FAILED


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
