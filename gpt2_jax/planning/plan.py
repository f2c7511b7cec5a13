"""The forecast of a run: what it needs, what it moves, how long it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.planning.aot import CompiledStep, compile_step
from gpt2_jax.planning.estimate import Estimate, from_program, from_shapes
from gpt2_jax.planning.memory import analytic_memory
from gpt2_jax.planning.topology import Topology
from gpt2_jax.planning.transfers import Transfer, on_paper, summed

COMPILED = "compiled for the topology; times uncalibrated"
ANALYTIC = "analytic: from shapes alone, nothing was compiled; times and activations are rough"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A forecast; bytes are of one device, ranges are (best, worst).

    Attributes:
      topology: name of the slice, or chip and count.
      method: COMPILED or ANALYTIC.
      memory_bytes: by kind: parameters, optimizer, gradients, activations (with all else that is
        temporary).
      needed_bytes, available_bytes: at the peak, and on the device.
      collectives: [{"kind", "axis", "of", "count", "bytes", "asynchronous"}] of a step; None when
        nothing was compiled.
      traffic_ratio: gathered and reduced bytes over the least that this layout needs; None when it
        needs none, or nothing was compiled.
      flops_per_step: 6N + 6LTd per token, over all devices; recomputation is not counted.
    """

    topology: str
    chip: str
    devices: int
    mesh: dict[str, int]
    method: str
    fits: bool
    memory_bytes: dict[str, int]
    needed_bytes: int
    available_bytes: int
    collectives: list[dict[str, Any]] | None
    traffic_ratio: float | None
    rematerializations: int | None
    flops_per_step: float
    tokens_per_step: int
    rows_per_device: int
    accumulation_steps: int
    remat: str
    parameters: int
    total_steps: int
    compile_seconds: float | None
    step_seconds: tuple[float, float] | None
    exposed_seconds: tuple[float, float] | None
    tokens_per_second: tuple[float, float] | None
    mfu: tuple[float, float] | None
    days: tuple[float, float] | None
    chip_hours: tuple[float, float] | None


def compiled_plan(config: Config, topology: Topology) -> Plan:
    """The forecast of the compiled step.

    Raises:
      UserError: for a mesh that does not divide the model or the batch, or without libtpu.
    """
    step, chip = compile_step(config, topology), topology.chip
    program = step if isinstance(step, CompiledStep) else None
    axis_sizes = mesh_lib.describe(mesh_lib.abstract_mesh(config.mesh, topology.num_devices))
    return _plan(
        config,
        chip,
        topology.name,
        axis_sizes,
        method=COMPILED,
        fits=step.memory.fits,
        memory_bytes=step.memory.by_kind,
        needed_bytes=step.memory.needed,
        available_bytes=step.memory.available,
        collectives=[*map(_row, summed(program.transfers))] if program else None,
        traffic_ratio=_traffic_ratio(config, axis_sizes, program) if program else None,
        rematerializations=program.rematerializations if program else None,
        compile_seconds=round(step.compile_seconds, 1),
        estimate=from_program(config, chip, axis_sizes, program) if program else None,
    )


def analytic_plan(config: Config, chip: Chip, num_devices: int, name: str) -> Plan:
    """The forecast from shapes alone.

    Args:
      name: of the devices, for the plan.

    Raises:
      UserError: for a mesh that does not divide the model or the batch.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    mesh_lib.check_batch(config.train, mesh)
    axis_sizes = mesh_lib.describe(mesh)
    memory = analytic_memory(config, chip, num_devices)
    return _plan(
        config,
        chip,
        name,
        axis_sizes,
        method=ANALYTIC,
        fits=memory.fits,
        memory_bytes=memory.by_kind,
        needed_bytes=memory.needed,
        available_bytes=memory.available,
        collectives=None,
        traffic_ratio=None,
        rematerializations=None,
        compile_seconds=None,
        estimate=from_shapes(config, chip, axis_sizes),
    )


def _plan(
    config: Config,
    chip: Chip,
    topology: str,
    axis_sizes: dict[str, int],
    *,
    estimate: Estimate | None,
    **found: Any,
) -> Plan:
    devices = axis_sizes["data"] * axis_sizes["fsdp"] * axis_sizes["tensor"]
    flops = flops_per_token(config.model) * config.tokens_per_step
    train = config.train
    times: dict[str, Any] = dict.fromkeys(
        ("step_seconds", "exposed_seconds", "tokens_per_second", "mfu", "days", "chip_hours")
    )
    if estimate is not None:
        seconds = estimate.step_seconds
        days = [train.total_steps * second / 86400 for second in seconds]
        times = {
            "step_seconds": seconds,
            "exposed_seconds": estimate.exposed_seconds,
            "tokens_per_second": tuple(config.tokens_per_step / second for second in seconds),
            "mfu": tuple(flops / second / devices / chip.peak_bf16_flops for second in seconds),
            "days": tuple(days),
            "chip_hours": tuple(24 * devices * day for day in days),
        }
    return Plan(
        topology=topology,
        chip=chip.name,
        devices=devices,
        mesh=axis_sizes,
        flops_per_step=flops,
        tokens_per_step=config.tokens_per_step,
        rows_per_device=mesh_lib.rows_per_device(train, axis_sizes),
        accumulation_steps=train.accumulation_steps,
        remat=config.model.remat,
        parameters=num_params(config.model),
        total_steps=train.total_steps,
        **times,
        **found,
    )


def _row(transfer: Transfer) -> dict[str, Any]:
    return {
        "kind": transfer.kind,
        "axis": "+".join(transfer.axes),
        "of": transfer.of,
        "asynchronous": transfer.asynchronous,
        "count": transfer.count,
        "bytes": transfer.bytes,
    }


def _traffic_ratio(config: Config, axis_sizes: dict[str, int], step: CompiledStep) -> float | None:
    """Bytes of gathered parameters and reduced gradients, over what this layout needs on paper."""
    paper = _weight_bytes(on_paper(config, axis_sizes))
    return _weight_bytes(step.transfers) / paper if paper else None


def _weight_bytes(transfers: Iterable[Transfer]) -> float:
    return sum(one.bytes for one in transfers if one.of in ("parameters", "gradients"))
