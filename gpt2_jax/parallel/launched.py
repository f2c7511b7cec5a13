"""Says how many processes a launcher has started for a run, and which of them this one is.

Nothing here imports JAX, because a process that only starts others need not wait for it.
"""

from __future__ import annotations

import os
import urllib.request

from gpt2_jax.errors import UserError

# Variables in which a launcher states the number of processes and the index of this one. mpirun
# inside a Slurm job starts its daemons as a Slurm step, so Open MPI comes before Slurm; a Slurm job
# that runs the command without srun has no step, and is one process however many tasks it has.
_LAUNCHERS = (
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


def launched_as(on_tpu: bool) -> tuple[int | None, int | None]:
    """Returns (number of processes, index of this one); None for what nothing states.

    Of a TPU slice it returns only the number: its runtime knows the index, and so does
    `index_on_tpu`.

    Args:
      on_tpu: whether this machine is part of a TPU slice, whose hosts are then the processes unless
        a launcher says otherwise.

    Raises:
      UserError: if a variable is no number.
    """
    for count_name, process_name in _LAUNCHERS:
        count = number(count_name)
        if count is not None:
            return count, number(process_name)
    return (_tpu_hosts() if on_tpu else None), None


def index_on_tpu() -> int:
    """Returns the index of this host among those of its TPU slices, as JAX counts them.

    Raises:
      UserError: if neither the environment nor the metadata of the machine states it.
    """
    worker = os.environ.get("TPU_WORKER_ID") or metadata("agent-worker-number") or ""
    if not worker.isdigit():
        raise UserError(
            "cannot tell which host of the TPU slice this is: set TPU_WORKER_ID to its number"
        )
    slices = number("MEGASCALE_NUM_SLICES") or 1
    hosts_of_slice = (_tpu_hosts() or 1) // slices
    return (number("MEGASCALE_SLICE_ID") or 0) * hosts_of_slice + int(worker)


def _tpu_hosts() -> int | None:
    """Returns the number of hosts of the TPU slices this process is on; None if nothing states it.

    GKE lists the hosts of a slice in the environment, Compute Engine in the metadata of the
    machine.
    """
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if not hosts and "TPU_SKIP_MDS_QUERY" not in os.environ:
        hosts = metadata("worker-network-endpoints")
    return (number("MEGASCALE_NUM_SLICES") or 1) * len(hosts.split(",")) if hosts else None


def metadata(key: str) -> str | None:
    """Returns an attribute of this machine of Compute Engine, or None without such metadata."""
    request = urllib.request.Request(_METADATA + key, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:  # a TPU without Compute Engine's metadata, as in a notebook
        return None


def number(name: str) -> int | None:
    """Returns the environment variable as an integer, or None if it is not set.

    Raises:
      UserError: if it is no integer.
    """
    text = os.environ.get(name)
    if text is not None and not text.isdigit():
        raise UserError(f"{name} in the environment must be an integer, not {text!r}")
    return None if text is None else int(text)
