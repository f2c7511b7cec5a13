"""Chooses and makes the engine of a sweep from what the command line says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.parallel.launched import index_on_tpu, launched_as
from gpt2_jax.sweeps.engines.engine import Engine, Log
from gpt2_jax.sweeps.engines.local import LocalEngine
from gpt2_jax.sweeps.engines.slice_leader import SliceEngine
from gpt2_jax.sweeps.engines.slots import Slot, check_numbers, make_slots, workers_that_fit
from gpt2_jax.sweeps.engines.slurm import SlurmEngine, check_installed, sbatch_options
from gpt2_jax.sweeps.folder import SweepFolder

ENGINES = LOCAL, SLURM, SLICE = ("local", "slurm", "slice")

_PACKAGE = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Says which engine runs the points, and how.

    Attributes:
      engine: one of `ENGINES`.
      at_once: how many points run at the same time; None if Slurm decides.
      slots: what the points run on, of the local engine.
      processes: of the slice; 1 for other engines.
      process: the number of this process in the slice; 0 leads.
      options: of sbatch.
    """

    engine: str
    at_once: int | None
    slots: Sequence[Slot] = ()
    processes: int = 1
    process: int = 0
    options: Sequence[str] = ()


def check(
    engine: str, workers: int | None, devices_per_point: int | None, sbatch: str | None
) -> None:
    """Refuses flags that do not belong together, and numbers that are out of range.

    The arguments are those of `choose`.

    Raises:
      UserError: naming the flag.
    """
    check_numbers(workers, devices_per_point)
    if sbatch is not None and engine != SLURM:
        raise UserError("--sbatch needs --engine slurm, without which it has no effect")
    sbatch_options(sbatch or "", devices_per_point)
    for flag, value in (("workers", workers), ("devices_per_point", devices_per_point)):
        if engine == SLICE and value is not None:
            raise UserError(
                f"--{flag} and --engine slice cannot be combined: a slice trains one point at a "
                "time on all of its devices"
            )


def points_at_once(engine: str, workers: int | None, devices_per_point: int | None) -> int | None:
    """Returns how many points run at the same time, or None if that is not known here.

    Slurm may decide it, or the number of GPUs of a machine which is not this one. The arguments are
    those of `choose`.
    """
    if engine == SLICE:
        return 1
    if engine == SLURM or workers is not None:
        return workers
    return workers_that_fit(devices_per_point) or None


def choose(
    engine: str,
    workers: int | None,
    devices_per_point: int | None,
    sbatch: str | None,
    *,
    on_tpu: bool,
) -> Choice:
    """Returns the choice that the flags describe, which `check` has accepted.

    Args:
      engine: one of `ENGINES`.
      workers: how many points run at the same time, or None.
      devices_per_point: GPUs of each point, or None.
      sbatch: options of sbatch, or None.
      on_tpu: whether this machine may be a host of a TPU slice.

    Raises:
      UserError: for more GPUs than there are, if Slurm is not installed, and for a local sweep in
        each of several processes.
    """
    at_once = points_at_once(engine, workers, devices_per_point)
    if engine == SLURM:
        check_installed()
        return Choice(SLURM, at_once, options=sbatch_options(sbatch or "", devices_per_point))
    if engine == SLICE:
        processes, process = launched_as(on_tpu)
        if (processes or 1) > 1 and process is None:
            if not on_tpu:
                raise UserError(
                    f"the environment says that there are {processes} processes, but not which of "
                    "them this is: set JAX_PROCESS_ID"
                )
            process = index_on_tpu()
        return Choice(SLICE, at_once, processes=processes or 1, process=process or 0)
    if (count := launched_as(on_tpu=False)[0] or 1) > 1:
        raise UserError(
            f"a launcher has started this command in {count} processes, each of which would run "
            "the sweep: give --engine slice, or start it without the launcher"
        )
    slots = make_slots(at_once, devices_per_point)
    return Choice(LOCAL, len(slots), slots)


def make(choice: Choice, folder: SweepFolder, base: str, out: str, log: Log) -> Engine:
    """Returns the engine.

    Args:
      choice: what `choose` has returned.
      folder: of the sweep.
      base: the base config.
      out: the folder's name, as the user gave it.
      log: called with lines about what the engine does.

    Raises:
      PeersLost: if other processes of a slice are missing.
    """
    if choice.engine == SLURM:
        script = batch_script()
        return SlurmEngine(folder, out, choice.options, script, at_once=choice.at_once, log=log)
    if choice.engine == SLICE:
        return SliceEngine(folder, base, choice.processes, log=log)
    return LocalEngine(folder, base, choice.slots, log=log)


def batch_script() -> Path:
    """Returns launch/slurm/train.sbatch, which `setup.py` installs into the package.

    Raises:
      UserError: if it is missing.
    """
    for folder in (_PACKAGE / "slurm", _PACKAGE.parent / "launch" / "slurm"):
        if (folder / "train.sbatch").is_file():
            return folder / "train.sbatch"
    raise UserError("the installation lacks train.sbatch of launch/slurm: install gpt2_jax again")
