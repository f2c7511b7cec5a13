"""Slots: which cores and GPUs each of the points that run at the same time has for itself."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from gpt2_jax.errors import UserError, warn
from gpt2_jax.parallel.cpu import available_cores
from gpt2_jax.sweeps.engines import child

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MOST_WORKERS = 1024


@dataclasses.dataclass(frozen=True)
class Slot:
    """Holds what one point at a time runs on.

    Attributes:
      cores: the numbers of the CPU cores; empty for all of them.
      devices: the value of CUDA_VISIBLE_DEVICES; None to leave it as it is.
    """

    cores: tuple[int, ...] = ()
    devices: str | None = None


def make_slots(workers: int | None, devices_per_point: int | None) -> list[Slot]:
    """Returns a slot for each worker, with an equal part of the cores and so many GPUs.

    Args:
      workers: how many points run at the same time; by default as many as the GPUs are for, or one.
      devices_per_point: GPUs of each point; None to leave GPUs to JAX.

    Raises:
      UserError: for more GPUs than there are.
    """
    gpus: list[str] = []
    if devices_per_point is not None:
        gpus = visible_gpus(os.environ, Path("/dev"))
        needed = (workers or 1) * devices_per_point
        if needed > len(gpus):
            raise UserError(
                f"--devices_per_point {devices_per_point} with --workers {workers or 1} needs "
                f"{needed} NVIDIA GPUs, and there are {len(gpus)}: lower one of them"
            )
    workers = workers or workers_that_fit(devices_per_point)
    cores = available_cores()
    if workers > len(cores):
        warn(f"--workers {workers} share {len(cores)} cores, and will slow each other down")
    slots = []
    for index in range(workers):
        own: Sequence[int] = ()
        if workers > 1:
            own = cores[index * len(cores) // workers : (index + 1) * len(cores) // workers]
            own = own or [cores[index % len(cores)]]
        devices = None
        if devices_per_point is not None:
            first = index * devices_per_point
            devices = ",".join(gpus[first : first + devices_per_point])
        slots.append(Slot(tuple(own), devices))
    return slots


def workers_that_fit(devices_per_point: int | None) -> int:
    """Returns how many points run at the same time by default.

    Args:
      devices_per_point: as for `make_slots`.

    Returns:
      1, or as many as there are GPUs for, which may be 0.
    """
    if devices_per_point is None:
        return 1
    return len(visible_gpus(os.environ, Path("/dev"))) // devices_per_point


def check_numbers(workers: int | None, devices_per_point: int | None) -> None:
    """Refuses numbers that are out of range.

    Raises:
      UserError: naming the flag.
    """
    for flag, value in (("workers", workers), ("devices_per_point", devices_per_point)):
        if value is not None and not 1 <= value <= _MOST_WORKERS:
            raise UserError(f"--{flag} must be between 1 and {_MOST_WORKERS}, not {value}")


def visible_gpus(environment: Mapping[str, str], devices: Path) -> list[str]:
    """Returns the NVIDIA GPUs as CUDA_VISIBLE_DEVICES names them.

    Args:
      environment: the variables; if CUDA_VISIBLE_DEVICES is set, it has the names.
      devices: the folder with a file `nvidia0`, `nvidia1`, ... for each GPU (/dev).
    """
    if _VISIBLE in environment:
        return [name.strip() for name in environment[_VISIBLE].split(",") if name.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia*")]
    return sorted((number for number in numbers if number.isdecimal()), key=int)


def start_in(
    slot: Slot, command: Sequence[str], log: IO[bytes], variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a command on the cores and GPUs of a slot.

    It has its own session, so that Ctrl-C reaches it only through this process. If this process is
    killed, Linux sends the command SIGTERM, so that it saves and ends.

    Args:
      slot: what it runs on.
      command: its words.
      log: the file for its output.
      variables: further environment variables.

    Raises:
      UserError: if it cannot be started.
    """
    environment = {**os.environ, **(variables or {})}
    if slot.devices is not None:
        environment[_VISIBLE] = slot.devices
    cores = ",".join(map(str, slot.cores)) or "all"
    starter = [sys.executable, "-I", "-S", child.__file__, cores, str(os.getpid())]
    try:
        return subprocess.Popen(
            [*starter, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from error
