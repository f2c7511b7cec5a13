"""Compiles the real training step for devices that are not there, and reads what it will need."""

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
from gpt2_jax.planning.classify import contents
from gpt2_jax.planning.hlo import Program
from gpt2_jax.planning.memory import Memory, state_bytes
from gpt2_jax.planning.topology import Topology, captured_stderr
from gpt2_jax.planning.transfers import Transfer
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.state import abstract_state
from gpt2_jax.train.step import compile_train_step

# Without these libtpu 0.0.51 cannot print a program for chips with SparseCores, to which it gives
# lookups.
_SPARSE_CORES = ("v5p", "v6e")
_READABLE = {
    "xla_tpu_offload_gather_to_sparsecore": "false",
    "xla_tpu_enable_offloading_gather_to_sparsecore": "false",
    "xla_tpu_enable_offloading_scatter_to_sparsecore": "false",
}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler says of a step on one device.

    Attributes:
      memory: that it takes.
      links: bytes/s a device can send along each mesh axis at best.
      transfers: between devices, in a step.
      cycles: XLA's estimate for what a device computes, kernels left out; 0 where it has none.
      kernels: (op_name, runs) of kernels that XLA knows nothing of.
      rematerializations: XLA's warnings that it moves an array the long way round.
      compile_seconds: wall clock.
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
    """What the compiler says of a step that it refuses.

    Attributes:
      memory: that it would take, which is known roughly.
      compile_seconds: wall clock.
    """

    memory: Memory
    compile_seconds: float


def compile_step(config: Config, topology: Topology) -> CompiledStep | DoesNotFit:
    """Compiles the step of this config for a TPU slice.

    Raises:
      UserError: for a mesh that does not divide the model or the batch, or without libtpu.
    """
    mesh, rules = mesh_lib.make_mesh(config.mesh, topology.devices()), Rules()
    mesh_lib.check_batch(config.train, mesh)
    optimizer = make_optimizer(config)
    abstract = abstract_state(config, optimizer, mesh, rules)
    state = state_bytes(abstract)
    readable = _READABLE if topology.chip.name in _SPARSE_CORES else {}
    began = time.monotonic()
    try:
        with captured_stderr() as warnings:
            compiled = compile_train_step(config, optimizer, mesh, rules, abstract, readable)
    except jax.errors.JaxRuntimeError as error:
        needed, available = _out_of_memory(error)
        memory = Memory(state, needed, available, fits=False)
        return DoesNotFit(memory, time.monotonic() - began)
    seconds = time.monotonic() - began
    program, carried = Program(compiled.as_text()), partial(contents, config, abstract.params)
    return CompiledStep(
        memory=_memory(compiled.memory_analysis(), state, topology.chip),
        links=topology.axis_bandwidth(mesh),
        transfers=tuple(collectives.transfers(program, mesh_lib.describe(mesh), carried)),
        cycles=program.cycles(),
        kernels=tuple(program.kernels()),
        rematerializations=sum("full rematerialization" in line for line in warnings),
        compile_seconds=seconds,
    )


def _memory(statistics: Any, state: dict[str, int], chip: Chip) -> Memory:
    # Gradients are temporary too.
    activations = max(statistics.temp_size_in_bytes - state["gradients"], 0)
    peak = statistics.peak_memory_in_bytes
    return Memory(state | {"activations": activations}, peak, chip.available_bytes, fits=True)


def _out_of_memory(error: Exception) -> tuple[int, int]:
    """(bytes needed, bytes available) of the compiler's refusal; other errors go on."""
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
