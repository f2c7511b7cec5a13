"""Process start-up, who writes, and what processes agree on."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from gpt2_jax.errors import PeersLost, StorageError, UserError, is_disk_full, no_room, told

# Who says how many processes a run has, and which of them this one is. mpirun inside a Slurm job
# starts its daemons as a Slurm step, so Open MPI is asked first; a Slurm job that runs the command
# without srun has no step, and is one process however many tasks it was given.
_LAUNCHERS = (
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
# What the runtime's errors begin with when a peer or a device is gone. Others, such as
# RESOURCE_EXHAUSTED and INVALID_ARGUMENT, would come again.
_LOST = ("UNKNOWN:", "INTERNAL:", "UNAVAILABLE:", "ABORTED:", "CANCELLED:", "DEADLINE_EXCEEDED:")
_TIMEOUT = "GPT2_JAX_START_TIMEOUT"
_TIMEOUT_S = 300
# How long a process that ends waits for the others to end, before it takes them for dead.
_SHUTDOWN_S = 60
_LONGEST_SAID = 1000  # bytes
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


def initialize() -> None:
    """Joins this process to the others of the run; call it before anything else touches a device.

    There are others where `JAX_NUM_PROCESSES` (with `JAX_PROCESS_ID` and
    `JAX_COORDINATOR_ADDRESS`), Open MPI, a Slurm step or a TPU slice says so; then a line on
    standard error tells which process this is. Elsewhere it does nothing. The launcher also tells
    where process 0 is reached, unless `JAX_COORDINATOR_ADDRESS` does. If they have not all met
    after 300 seconds, or as many as `GPT2_JAX_START_TIMEOUT` says, the process ends with the exit
    status of `PeersLost`.

    Raises:
      UserError: if a variable is missing or makes no sense.
      PeersLost: if the address can't be used.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    if address and not re.fullmatch(r".+:\d+", address):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address} in the environment must be HOST:PORT")
    count, process = _place()
    if address and count is None:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address} is set in the environment, but not how many "
            "processes there are: set JAX_NUM_PROCESSES and JAX_PROCESS_ID, or unset it"
        )
    if count is None or count == 1:
        return
    timeout_s = _number(_TIMEOUT) or _TIMEOUT_S
    this = "this process" if process is None else f"process {process}"
    late = (
        f"{this} and the {count - 1} other(s) of this run have not met at "
        f"{address or 'their coordinator'} in {timeout_s} s: start all {count}, let the port of "
        f"process 0 be reached from everywhere, or give them longer with {_TIMEOUT}"
    )
    try:
        with _deadline(timeout_s, late):
            jax.distributed.initialize(
                address,
                count if process is not None else None,
                process,
                initialization_timeout=timeout_s + 60,  # at its own end JAX aborts without a word
                shutdown_timeout_seconds=_SHUTDOWN_S,
            )
    except ValueError as error:
        raise UserError(
            f"can't join the {count} processes of this run: {error} (the environment needs "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)"
        ) from error
    except RuntimeError as error:
        raise PeersLost(f"can't join the {count} processes of this run: {error}") from error
    print(
        f"process {jax.process_index()} of {jax.process_count()}: "
        f"{jax.local_device_count()} of {jax.device_count()} devices",
        file=sys.stderr,
    )


def _place() -> tuple[int | None, int | None]:
    """(processes, number of this one), None for what nobody has said."""
    for count_name, process_name in _LAUNCHERS:
        count = _number(count_name)
        if count is not None:
            return count, _number(process_name)
    return _tpu_hosts(), None


def _tpu_hosts() -> int | None:
    """Hosts of the TPU slices this process is on, None where there is no TPU.

    On a machine with TPU chips JAX puts "tpu" into its platforms as it is imported. GKE then lists
    the hosts of a slice in the environment, Compute Engine in the metadata of the machine.
    """
    if "tpu" not in (getattr(jax.config, "jax_platforms", None) or ""):
        return None
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if not hosts and "TPU_SKIP_MDS_QUERY" not in os.environ:
        hosts = _metadata("worker-network-endpoints")
    return (_number("MEGASCALE_NUM_SLICES") or 1) * len(hosts.split(",")) if hosts else None


def _metadata(key: str) -> str | None:
    request = urllib.request.Request(_METADATA + key, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:  # a TPU without Compute Engine's metadata, as in a notebook
        return None


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise UserError(f"{name} in the environment must be a whole number, not {text!r}")
    return None if text is None else int(text)


@contextlib.contextmanager
def _deadline(seconds: int, message: str) -> Iterator[None]:
    """Ends the process with a line if the block takes longer: JAX waits in C++ and then aborts."""

    def end() -> None:
        os.write(sys.stderr.fileno(), f"error: {message}\n".encode())
        os._exit(PeersLost.exit_status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def peers_expected() -> Iterator[None]:
    """Tells what a lost peer does to this process from what is wrong with the program.

    Raises:
      PeersLost: for a failure of the runtime in a run of several processes, if it is of a kind that
        a peer or a device causes.
    """
    try:
        yield
    except Exception as error:
        if not is_lost(error):
            raise
        reason = str(error).partition("\n")[0]
        raise PeersLost(
            f"process {jax.process_index()} lost another of the run, or a device: start all again "
            f"({reason[:300]})"
        ) from error


def is_lost(error: Exception) -> bool:
    """Whether an error is of a kind that a peer or a device that is gone causes."""
    kinds = (jax.errors.JaxRuntimeError, ValueError)  # some collectives raise the latter
    several = jax.process_count() > 1
    return several and isinstance(error, kinds) and str(error).startswith(_LOST)


def agreed(value: int) -> int:
    """The value that process 0 has, in all; each process must ask."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def first_said(text: str | None) -> str | None:
    """What the first process with something to say says, in all; each process must ask."""
    if jax.process_count() == 1:
        return text
    said = np.zeros(_LONGEST_SAID, np.uint8)
    content = np.frombuffer((text or "").encode()[:_LONGEST_SAID], np.uint8)
    said[: len(content)] = content
    rows = multihost_utils.process_allgather(said)
    texts = [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows]
    return next((text for text in texts if text), None)


def on_primary(action: Callable[[], object]) -> None:
    """Runs an action in process 0 while the others wait for it; each process must ask.

    Raises:
      UserError: in all, if the action raised one.
      StorageError: in all, if it raised one, or an OSError.
    """
    mistake = failure = None
    if is_primary():
        try:
            action()
        except UserError as error:
            mistake = told(error)
        except StorageError as error:
            failure = told(error)
        except OSError as error:
            failure = no_room(error) if is_disk_full(error) else told(error)
    if (mistake := first_said(mistake)) is not None:
        raise UserError(mistake)
    if (failure := first_said(failure)) is not None:
        raise StorageError(failure)


def check_shared(folder: Path) -> None:
    """Refuses a folder that is not the same one in all processes; each must ask.

    Raises:
      UserError: in a process that does not find there what process 0 has left.
    """
    if jax.process_count() == 1:
        return
    note = folder / f".shared.{agreed(os.getpid())}"
    on_primary(lambda: note.write_text(""))
    multihost_utils.sync_global_devices("a note has been left")
    found = note.exists()
    multihost_utils.sync_global_devices("a note has been looked for")
    if is_primary():
        note.unlink(missing_ok=True)
    if not found:
        raise UserError(
            f"--workdir {folder} is another folder in process {jax.process_index()} than in "
            "process 0: name one that all machines share, such as gs://BUCKET/RUN"
        )


def is_primary() -> bool:
    """Whether this process is the one that logs and writes shared files."""
    return jax.process_index() == 0
