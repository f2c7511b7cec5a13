"""The command with one fault in one of its processes.

FAULT=PROCESS:NUMBER:KIND. KIND is a signal that the process sends itself while it makes the batch
of that number, or `block`, with which that batch never comes. With `arrays` or `manifest` the disk
is full when these are written for the checkpoint of that step; with `restore` the process is killed
when it reads a checkpoint. With the name of a function, as `MODULE.NAME`, it is killed when it
calls this for the NUMBER-th time. FAULT_MET is a file that is created at the fault, so that it
happens only once.
"""

from __future__ import annotations

import concurrent.futures
import errno
import importlib
import itertools
import os
import signal
import threading
from pathlib import Path

import orbax.checkpoint as ocp

from gpt2_jax.checkpoint import commit, store
from gpt2_jax.cli.main import console
from gpt2_jax.data.example_batches import ExampleLoader
from gpt2_jax.data.loader import TrainLoader


def wait_for_a_disk_that_never_answers() -> None:
    threading.Event().wait()


def cause(kind: str) -> None:
    """Causes the fault; returns if it is a full disk."""
    Path(os.environ["FAULT_MET"]).touch()
    if kind == "block":
        wait_for_a_disk_that_never_answers()
    if kind in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[kind])


def kill_before_call(number: int, name: str) -> None:
    """Makes the process kill itself when it calls a function of a module for the number-th time."""
    module_name, _, function_name = name.rpartition(".")
    module = importlib.import_module(module_name)
    function, calls = getattr(module, function_name), itertools.count(1)

    def call(*args, **kwargs):
        if next(calls) == number:
            cause("SIGKILL")
        return function(*args, **kwargs)

    setattr(module, function_name, call)


def arm() -> None:
    process, number, kind = os.environ["FAULT"].split(":")
    if process != os.environ.get("JAX_PROCESS_ID", "0") or Path(os.environ["FAULT_MET"]).exists():
        return
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write_manifest = commit.write_manifest
    save, restore = ocp.StandardCheckpointHandler.async_save, store.CheckpointStore.restore
    met = Path(os.environ["FAULT_MET"])

    def failing(make_rows):
        def rows(self, step, row_indices):
            if step == int(number) and not met.exists():
                cause(kind)
            return make_rows(self, step, row_indices)

        return rows

    def no_manifest(folder, step):
        if step == int(number) and not met.exists():
            cause(kind)
            raise full
        write_manifest(folder, step)

    async def no_arrays(self, directory, *args, **more):
        futures = await save(self, directory, *args, **more)
        if f"{number}." in str(directory) and not met.exists():
            cause(kind)
            failed = concurrent.futures.Future()
            failed.set_exception(full)
            return [*futures, failed]
        return futures

    def no_restore(self, *args):
        cause("SIGKILL")
        return restore(self, *args)

    if kind == "manifest":
        commit.write_manifest = no_manifest
    elif kind == "arrays":
        ocp.StandardCheckpointHandler.async_save = no_arrays
    elif "." in kind:
        kill_before_call(int(number), kind)
    elif kind == "restore":
        store.CheckpointStore.restore = no_restore
    else:
        for loader in (TrainLoader, ExampleLoader):
            loader.rows = failing(loader.rows)


if __name__ == "__main__":
    arm()
    console()
