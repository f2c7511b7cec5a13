"""Compiles the real training step for devices that are not there, and reads what it will need."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time

import jax

from gpt2_jax.config import Config
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning import collectives
from gpt2_jax.planning.contents import contents
from gpt2_jax.planning.hlo import Program
from gpt2_jax.planning.memory import state_bytes
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
      memory_bytes: by kind: parameters, optimizer, gradients, and activations with all else that
        lives only within a step. What a step that does not fit needs is known roughly: its kinds
        may be missing.
      peak_bytes: the most that is in use at one time.
      available_bytes: what the compiler said there is; None where the step fits.
      axis_sizes: of the mesh.
      links: bytes/s a device can send along each mesh axis at best.
      transfers: between devices, in a step.
      cycles: XLA's estimate for what a device computes, kernels left out; 0 where it has none.
      kernels: (op_name, runs) of kernels that XLA knows nothing of.
      compile_seconds: wall clock.
      rematerializations: XLA's warnings that it moves an array the long way round.
    """

    fits: bool
    memory_bytes: dict[str, int]
    peak_bytes: int
    available_bytes: int | None
    axis_sizes: dict[str, int]
    links: dict[str, float]
    transfers: tuple[Transfer, ...]
    cycles: int
    kernels: tuple[tuple[str, int], ...]
    compile_seconds: float
    rematerializations: int


def compile_step(config: Config, topology: Topology) -> CompiledStep:
    """Compiles the step of this config for a TPU slice.

    Raises:
      UserError: for a mesh that does not divide the model or the batch, or without libtpu.
    """
    mesh, rules = mesh_lib.make_mesh(config.mesh, topology.devices()), Rules()
    mesh_lib.check_batch(config.train, mesh)
    optimizer = make_optimizer(config)
    abstract = abstract_state(config, optimizer, mesh, rules)
    memory = state_bytes(abstract)
    readable = _READABLE if topology.chip.name in _SPARSE_CORES else {}
    axis_sizes, links = mesh_lib.describe(mesh), topology.axis_bandwidth(mesh)
    began = time.monotonic()
    try:
        with captured_stderr() as warnings:
            compiled = compile_train_step(config, optimizer, mesh, rules, abstract, readable)
    except jax.errors.JaxRuntimeError as error:
        needed, available = _out_of_memory(error)
        seconds = time.monotonic() - began
        return CompiledStep(
            False, memory, needed, available, axis_sizes, links, (), 0, (), seconds, 0
        )
    seconds = time.monotonic() - began
    statistics = compiled.memory_analysis()
    temporary = statistics.temp_size_in_bytes
    memory["activations"] = max(temporary - memory["gradients"], 0)
    program = Program(compiled.as_text())
    carried = functools.partial(contents, config, abstract.params)
    return CompiledStep(
        fits=True,
        memory_bytes=memory,
        peak_bytes=statistics.peak_memory_in_bytes,
        available_bytes=None,
        axis_sizes=axis_sizes,
        links=links,
        transfers=tuple(collectives.transfers(program, axis_sizes, carried)),
        cycles=program.cycles(),
        kernels=tuple(program.kernels()),
        compile_seconds=seconds,
        rematerializations=sum("full rematerialization" in line for line in warnings),
    )


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
