"""Compiles the training step for devices that are not present, and reads what it will need."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from functools import partial
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning import collectives
from gpt2_jax.planning.classify import classify_transfer
from gpt2_jax.planning.hlo import Program
from gpt2_jax.planning.memory import Memory, state_bytes
from gpt2_jax.planning.topology import Topology, captured_stderr
from gpt2_jax.planning.transfers import Transfer
from gpt2_jax.prepare.example_files import uses_examples
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from gpt2_jax.training.step import compile_train_step

# Without these options, libtpu 0.0.51 gives lookups to SparseCores on chips that have them, and
# cannot print the program.
_SPARSE_CORES = ("v5p", "v6e")
_PRINTABLE = {
    "xla_tpu_offload_gather_to_sparsecore": "false",
    "xla_tpu_enable_offloading_gather_to_sparsecore": "false",
    "xla_tpu_enable_offloading_scatter_to_sparsecore": "false",
}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """Holds the compiler's figures for a step on one device.

    Attributes:
      memory: the memory that the step needs.
      links: peak bytes/s that a device can send along each mesh axis, and between slices.
      transfers: the transfers between devices in a step.
      cycles: XLA's estimate of the cycles that a device computes, without kernels; 0 if unknown.
      kernels: (op_name, runs) of kernels whose cost XLA does not know.
      rematerializations: number of arrays that XLA warns it reshards by gathering them whole.
      compile_seconds: wall-clock time of the compilation.
    """

    memory: Memory
    links: dict[str, float]
    transfers: tuple[Transfer, ...]
    cycles: int
    kernels: tuple[tuple[str, int], ...]
    rematerializations: int
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class DoesNotFit:
    """Holds the compiler's figures for a step that does not fit the memory.

    Attributes:
      memory: a rough figure of the memory that the step would need.
      compile_seconds: wall-clock time of the compilation.
    """

    memory: Memory
    compile_seconds: float


def compile_step(config: Config, topology: Topology) -> CompiledStep | DoesNotFit:
    """Compiles the training step of a config for TPU slices.

    Raises:
      UserError: if the mesh does not divide the model or the batch, or libtpu is not installed.
    """
    mesh, rules = mesh_lib.make_mesh(config.mesh, topology.devices()), Rules()
    mesh_lib.check_batch(config.train, mesh)
    optimizer = make_optimizer(config)
    abstract = abstract_state(config, optimizer, mesh, rules)
    state = state_bytes(config, abstract)
    options = _PRINTABLE if topology.chip.name in _SPARSE_CORES else {}
    start = time.monotonic()
    try:
        with captured_stderr() as warnings:
            examples = uses_examples(config)
            compiled = compile_train_step(
                config,
                optimizer,
                mesh,
                rules,
                abstract,
                weighted=examples,
                segmented=examples or config.data.isolate_documents,
                more_options=options,
            )
    except jax.errors.JaxRuntimeError as error:
        needed, available = _out_of_memory(error)
        memory = Memory(state, needed, available, fits=False)
        return DoesNotFit(memory, time.monotonic() - start)
    seconds = time.monotonic() - start
    program = Program(compiled.as_text())
    classify = partial(classify_transfer, config, abstract.params)
    return CompiledStep(
        memory=_memory(compiled.memory_analysis(), state, topology.chip),
        links=topology.axis_bandwidth(mesh),
        transfers=tuple(
            collectives.transfers(
                program, mesh_lib.describe(mesh), classify, num_slices=topology.num_slices
            )
        ),
        cycles=program.cycles(),
        kernels=tuple(program.kernels()),
        rematerializations=sum("full rematerialization" in line for line in warnings),
        compile_seconds=seconds,
    )


def _memory(statistics: Any, state: dict[str, int], chip: Chip) -> Memory:
    # The compiler counts gradients as temporary arrays, too.
    activations = max(statistics.temp_size_in_bytes - state["gradients"], 0)
    peak = statistics.peak_memory_in_bytes
    return Memory(state | {"activations": activations}, peak, chip.available_bytes, fits=True)


def _out_of_memory(error: Exception) -> tuple[int, int]:
    """Returns (bytes needed, bytes available) from the compiler's error; raises other errors."""
    match = re.search(
        r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)", str(error)
    )
    if match is None:
        raise error
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    needed, needed_unit, available, available_unit = match.groups()
    return (
        math.ceil(float(needed) * units[needed_unit]),
        math.floor(float(available) * units[available_unit]),
    )
