"""Starts processes together, and passes values and failures between them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from gpt2_jax.errors import PeersLost, StorageError, UserError, error_text
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.disk_full import disk_full_message, is_disk_full
from gpt2_jax.parallel.launched import launched_as, number

# The runtime's errors begin with these when a peer or a device is gone. Others, such as
# RESOURCE_EXHAUSTED and INVALID_ARGUMENT, would occur again.
_PEER_LOSS = (
    "UNKNOWN:",
    "INTERNAL:",
    "UNAVAILABLE:",
    "ABORTED:",
    "CANCELLED:",
    "DEADLINE_EXCEEDED:",
)
_TIMEOUT = "GPT2_JAX_START_TIMEOUT"
_TIMEOUT_S = 300
# How long a process that ends waits for the others to end, before it considers them dead.
_SHUTDOWN_S = 60
_MAX_MESSAGE = 1000  # bytes


def initialize() -> None:
    """Joins this process to the others of the run; call it before anything else touches a device.

    A run has several processes if `JAX_NUM_PROCESSES` (with `JAX_PROCESS_ID` and
    `JAX_COORDINATOR_ADDRESS`), Open MPI, a Slurm step or a TPU slice says so; a line on standard
    error then states the index of this process. Otherwise nothing happens. The launcher also gives
    the address of process 0, unless `JAX_COORDINATOR_ADDRESS` does. If the processes have not all
    connected after 300 seconds, or `GPT2_JAX_START_TIMEOUT` seconds, this process ends with the
    exit status of `PeersLost`.

    Raises:
      UserError: if a variable is missing or not valid.
      PeersLost: if the address cannot be used.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    if address and not re.fullmatch(r".+:\d+", address):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address} in the environment must be HOST:PORT")
    # On a machine with TPU chips JAX adds "tpu" to its platforms when it is imported.
    count, process = launched_as("tpu" in (getattr(jax.config, "jax_platforms", None) or ""))
    if address and count is None:
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address} is set in the environment, but not how many "
            "processes there are: set JAX_NUM_PROCESSES and JAX_PROCESS_ID, or unset it"
        )
    if count is None or count == 1:
        return
    timeout_s = number(_TIMEOUT) or _TIMEOUT_S
    this = "this process" if process is None else f"process {process}"
    late = (
        f"{this} and the {count - 1} other(s) of this run have not connected to "
        f"{address or 'their coordinator'} in {timeout_s} s: start all {count}, make the port of "
        f"process 0 reachable from all machines, or allow more seconds with {_TIMEOUT}"
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
            f"cannot join the {count} processes of this run: {error} (the environment needs "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)"
        ) from error
    except RuntimeError as error:
        raise PeersLost(f"cannot join the {count} processes of this run: {error}") from error
    print(
        f"process {jax.process_index()} of {jax.process_count()}: "
        f"{jax.local_device_count()} of {jax.device_count()} devices",
        file=sys.stderr,
    )


@contextlib.contextmanager
def _deadline(seconds: int, message: str) -> Iterator[None]:
    """Ends the process with a message if the block takes longer.

    JAX would wait in C++ and then abort without one.
    """

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
def report_lost_peers() -> Iterator[None]:
    """Turns an error that a lost peer causes into `PeersLost`; other errors pass unchanged.

    Raises:
      PeersLost: if the block fails because a peer or a device is gone; see `is_peer_loss`.
    """
    try:
        yield
    except Exception as error:
        if not is_peer_loss(error):
            raise
        reason = str(error).partition("\n")[0]
        raise PeersLost(
            f"process {jax.process_index()} lost another process or a device: start all again "
            f"({reason[:300]})"
        ) from error


def is_peer_loss(error: Exception) -> bool:
    """Returns whether an error says that another process, or a device, is gone."""
    kinds = (jax.errors.JaxRuntimeError, ValueError)  # some collectives raise the latter
    several = jax.process_count() > 1
    return several and isinstance(error, kinds) and str(error).startswith(_PEER_LOSS)


def on_every_host(array: jax.Array) -> np.ndarray:
    """Returns the whole of an array on every process, all of which must call this.

    Raises:
      RuntimeError: as JAX does, if another process is gone.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def broadcast_from_primary(value: int) -> int:
    """Returns the value of process 0 in all processes, each of which must call this."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def first_message(message: str | None) -> str | None:
    """Returns the message of the first process that has one, in all; each must call this."""
    if jax.process_count() == 1:
        return message
    padded = np.zeros(_MAX_MESSAGE, np.uint8)
    content = np.frombuffer((message or "").encode()[:_MAX_MESSAGE], np.uint8)
    padded[: len(content)] = content
    gathered = multihost_utils.process_allgather(padded)
    messages = [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in gathered]
    return next((message for message in messages if message), None)


def run_on_primary(action: Callable[[], object]) -> None:
    """Runs an action in process 0 while the others wait; each process must call this.

    Raises:
      UserError: in all processes, if the action raised one.
      StorageError: in all processes, if the action raised one, or an OSError.
    """
    user_error = storage_error = None
    if is_primary():
        try:
            action()
        except UserError as error:
            user_error = error_text(error)
        except StorageError as error:
            storage_error = error_text(error)
        except OSError as error:
            storage_error = disk_full_message(error) if is_disk_full(error) else error_text(error)
    if (message := first_message(user_error)) is not None:
        raise UserError(message)
    if (message := first_message(storage_error)) is not None:
        raise StorageError(message)


def check_shared_folder(folder: Path) -> None:
    """Checks that a folder is the same one in all processes, each of which must call this.

    Raises:
      UserError: in a process that does not see a file that process 0 has written there.
    """
    if jax.process_count() == 1:
        return
    marker = folder / f".shared.{broadcast_from_primary(os.getpid())}"
    run_on_primary(lambda: write_file(marker, b""))
    multihost_utils.sync_global_devices("the marker has been written")
    exists = marker.exists()
    multihost_utils.sync_global_devices("the marker has been looked for")
    if is_primary():
        marker.unlink(missing_ok=True)
    if not exists:
        raise UserError(
            f"--workdir {folder} is another folder in process {jax.process_index()} than in "
            "process 0: name one that all machines share, such as gs://BUCKET/RUN"
        )


def is_primary() -> bool:
    """Returns whether this process is the one that logs and writes shared files."""
    return jax.process_index() == 0
