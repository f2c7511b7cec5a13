"""Compiles the real training step for devices that are not there, and reads what it will need."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.hlo import Collective, Program
from gpt2_jax.planning.topology import Topology, captured_stderr
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.state import TrainState, abstract_state, bytes_per_device
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
class Transfer:
    """A collective, and what it carries.

    Attributes:
      of: "parameters" (gathered), "gradients" (reduced), "activations", or "scalars" for whatever
        is too small to matter.
    """

    collective: Collective
    of: str


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
    memory = bytes_by_kind(abstract)
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
    collectives = program.collectives(axis_sizes)
    return CompiledStep(
        fits=True,
        memory_bytes=memory,
        peak_bytes=statistics.peak_memory_in_bytes,
        available_bytes=None,
        axis_sizes=axis_sizes,
        links=links,
        transfers=tuple(Transfer(c, contents(c, config, abstract.params)) for c in collectives),
        cycles=program.cycles(),
        kernels=tuple(program.kernels()),
        compile_seconds=seconds,
        rematerializations=sum("full rematerialization" in line for line in warnings),
    )


def bytes_by_kind(abstract: TrainState) -> dict[str, int]:
    """Bytes a device holds of the state, and of gradients while they are made."""
    parameters = bytes_per_device(abstract.params)
    return {
        "parameters": parameters,
        "optimizer": bytes_per_device(abstract.opt_state),
        "gradients": parameters,
    }


def contents(collective: Collective, config: Config, params: Any) -> str:
    """What a collective carries, told by the shapes of its arrays.

    A parameter may travel whole or in parts, one layer or all, with one axis split in two by FSDP.
    What has no parameter's shape is an activation if it has an axis of tokens, and else a padded
    parameter.
    """
    # Norms, biases and sums of losses: their latency counts only.
    small = 16 * config.model.mlp_width
    large = [array for array in collective.arrays if array.elements > small]
    if not large:
        return "scalars"
    shapes = set().union(*map(_shapes, jax.tree.leaves(params)))
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    rows = mesh_lib.rows_per_device(config.train, mesh.shape)
    lengths = {config.model.context_length, config.model.loss_chunk or config.model.context_length}
    tokens = lengths | {rows * length for length in lengths}
    for array in large:
        if tokens & set(array.dims) and shapes.isdisjoint(_unsplit(array.dims, lengths)):
            return "activations"
    return "parameters" if collective.kind == "all-gather" else "gradients"


def _unsplit(dims: Sequence[int], lengths: set[int]) -> set[tuple[int, ...]]:
    """The shape as it is, and with any two axes made one that are none of tokens."""
    axes = [i for i, size in enumerate(dims) if size not in lengths]
    merged = {
        _plain(
            [*(size for k, size in enumerate(dims) if k not in pair), dims[pair[0]] * dims[pair[1]]]
        )
        for pair in itertools.combinations(axes, 2)
    }
    return merged | {_plain(dims)}


def _shapes(leaf: Any) -> set[tuple[int, ...]]:
    """Shapes that a parameter may have on its way: whole or cut, all layers or one."""
    found = set()
    spec, mesh = leaf.sharding.spec, leaf.sharding.mesh
    for cut in ((), ("fsdp",), ("tensor",), ("fsdp", "tensor")):
        dims = [
            size // (mesh.shape[axis] if axis in cut else 1)
            for size, axis in itertools.zip_longest(leaf.shape, spec)
        ]
        found |= {_plain(dims), _plain(dims[1:])}
    return found


def _plain(dims: Sequence[int]) -> tuple[int, ...]:
    """The dimensions in order of size, those of 1 left out: layouts permute them."""
    return tuple(sorted(size for size in dims if size > 1))


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
