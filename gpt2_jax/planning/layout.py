"""Chooses the mesh of a run whose config sets no axis of it, from shapes alone and in a second."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2_jax.config import Config, MeshConfig
from gpt2_jax.errors import UserError
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip, chip_for
from gpt2_jax.parallel.mesh import AXES
from gpt2_jax.parallel.rules import Rules, divisible_meshes
from gpt2_jax.planning.memory import analytic_memory, boxed_state_of

# Share of the memory that the estimate should leave free: programs compiled for TPUs need up to a
# tenth more than it says.
_ROOM = 0.15
# If none leaves that much, a preferred layout may need this much more than the smallest.
_NEARLY = 1.05

# Over more devices than this, tensor parallelism reduces activations over links that are too slow.
_MAX_TENSOR = 8

_GIB = 2**30

Sizes = tuple[int, int, int]
"""The sizes of (data, fsdp, tensor)."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Holds a mesh and what to say about it.

    Attributes:
      mesh: the sizes of the axes.
      text: the mesh and how it came about, in one line.
      problem: why no layout is expected to fit, and what to set; None if this one is.
    """

    mesh: MeshConfig
    text: str
    problem: str | None = None


def run_layout(config: Config, devices: Sequence[Any]) -> Layout | None:
    """Returns the layout of a run on these devices; None on CPUs and on one device.

    A config that sets an axis of the mesh decides it. Otherwise the choice depends on the config
    and the kinds and number of the devices of all processes alone, so that all choose the same.

    Raises:
      UserError: if the mesh is unset, and no layout divides the model and the batch, or none is
        expected to fit the memory.
    """
    if len(devices) == 1 or devices[0].platform == "cpu":
        return None
    if not mesh_lib.is_unset(config.mesh):
        return _fixed(config, len(devices), "as configured")
    chips = [chip_for(kind) for kind in sorted({device.device_kind for device in devices})]
    known = [chip for chip in chips if chip is not None]
    if len(known) < len(chips):
        return _fixed(config, len(devices), "mesh is unset, and the devices' memory is unknown")
    chip = min(known, key=lambda chip: chip.available_bytes)
    layout = choose_layout(config, chip, len(devices), mesh_lib.num_slices(devices))
    if layout.problem is not None:
        raise UserError(layout.problem)
    return layout


def choose_layout(config: Config, chip: Chip, num_devices: int, num_slices: int = 1) -> Layout:
    """Returns the layout that is expected to be the fastest of those that fit with room to spare.

    Data parallelism alone transfers the least, so it comes first. Otherwise parameters are sharded.
    On GPUs that is over as few devices as will do, so that they are gathered between neighbors. On
    TPUs it is over as many as can be while data is at least 2 in each slice: sharded updates are
    faster, and only on such a mesh do programs scatter the gradients that they reduce (see
    docs/parallelism.md). Tensor parallelism comes last.

    Args:
      config: config of the run; its `model.vocab_size` must be set, and its mesh is ignored.
      chip: figures of one device.
      num_devices: number of devices.
      num_slices: number of TPU slices that the devices are on.

    Raises:
      UserError: if no layout divides the model and the batch.
    """
    if num_devices == 1:
        return Layout(MeshConfig(1, 1, 1), mesh_lib.axes_text(dict.fromkeys(AXES, 1)))
    choices = sorted(
        _divide_batch(config, dividing_meshes(config, num_devices, num_slices)),
        key=lambda sizes: _preference(sizes, chip, num_slices),
    )
    if not choices:
        raise UserError(_indivisible(config, num_devices, num_slices))
    usable = chip.available_bytes
    needed = {}
    for sizes in choices:
        needed[sizes] = _needed(config, sizes, chip)
        if needed[sizes] <= (1 - _ROOM) * usable:
            return _chosen(sizes, needed[sizes], usable)
    # None leaves room. Tensor parallelism is no way to save the last few bytes.
    for tensor in sorted({sizes[2] for sizes in choices}):
        alike = [sizes for sizes in choices if sizes[2] == tensor]
        least = min(needed[sizes] for sizes in alike)
        if least <= usable:
            most = min(_NEARLY * least, usable)
            sizes = next(sizes for sizes in alike if needed[sizes] <= most)
            return _chosen(sizes, needed[sizes], usable)
    alike = [sizes for sizes in choices if sizes[2] == choices[0][2]]
    smallest = min(alike, key=lambda sizes: needed[sizes])
    problem = _too_large(config, smallest, needed[smallest], chip, num_slices)
    return dataclasses.replace(_chosen(smallest, needed[smallest], usable), problem=problem)


def _preference(sizes: Sizes, chip: Chip, num_slices: int) -> tuple[int, ...]:
    """Returns the key to sort layouts by, the preferred first."""
    data, fsdp, tensor = sizes
    if not chip.is_tpu:
        return tensor, fsdp
    spans_slice = data == num_slices
    return tensor, fsdp > 1, spans_slice, -fsdp


def dividing_meshes(config: Config, num_devices: int, num_slices: int) -> list[Sizes]:
    """Returns the meshes of so many devices that divide the model and fit the slices.

    Those with so much tensor parallelism that it cannot pay are left out.
    """
    meshes = divisible_meshes(boxed_state_of(config), Rules(), num_devices)
    return [m for m in meshes if m[2] <= _MAX_TENSOR and m[0] % num_slices == 0]


def _divide_batch(config: Config, meshes: Sequence[Sizes]) -> Iterator[Sizes]:
    train = config.train
    for data, fsdp, tensor in meshes:
        if train.batch_size % (data * fsdp * train.accumulation_steps) == 0:
            yield data, fsdp, tensor


def _needed(config: Config, sizes: Sizes, chip: Chip) -> int:
    """Returns the bytes that the analytic model expects a step to need on one device."""
    placed = dataclasses.replace(config, mesh=MeshConfig(*sizes))
    return analytic_memory(placed, chip, math.prod(sizes)).needed


def _chosen(sizes: Sizes, needed: int, usable: int) -> Layout:
    memory = _memory_text(needed, usable)
    return Layout(MeshConfig(*sizes), f"{_text(sizes)} (chosen, as mesh is unset: {memory})")


def _memory_text(needed: int, usable: int) -> str:
    return f"about {needed / _GIB:.1f} of {usable / _GIB:.1f} GiB a device"


def _fixed(config: Config, num_devices: int, why: str) -> Layout:
    sizes = mesh_lib.resolve_axes(config.mesh, num_devices)
    return Layout(config.mesh, f"{_text(sizes)} ({why})")


def _text(sizes: Sizes) -> str:
    return mesh_lib.axes_text(dict(zip(AXES, sizes, strict=True)))


def _too_large(config: Config, sizes: Sizes, needed: int, chip: Chip, num_slices: int) -> str:
    """Returns what to say if even the layout that needs the least does not fit."""
    knobs = " ".join(f"--config.mesh.{axis}={n}" for axis, n in zip(AXES, sizes, strict=True))
    num_devices = math.prod(sizes)
    return (
        f"mesh is unset, and no layout of {num_devices} devices is expected to fit their memory: "
        f"{_text(sizes)} needs {_memory_text(needed, chip.available_bytes)}; "
        f"{_what_fits(config, num_devices, chip, num_slices)}, or name a mesh to try it all the "
        f"same: {knobs}"
    )


def _what_fits(config: Config, num_devices: int, chip: Chip, num_slices: int) -> str:
    """Returns the least change after which a layout fits with room to spare, as advice."""
    most = (1 - _ROOM) * chip.available_bytes
    meshes = dividing_meshes(config, num_devices, num_slices)
    for remat in dict.fromkeys((config.compute.remat, "full")):
        compute = dataclasses.replace(config.compute, remat=remat)
        for steps in mesh_lib.divisors(config.train.batch_size):
            if steps < config.train.accumulation_steps:
                continue
            train = dataclasses.replace(config.train, accumulation_steps=steps)
            smaller = dataclasses.replace(config, compute=compute, train=train)
            if any(_needed(smaller, m, chip) <= most for m in _divide_batch(smaller, meshes)):
                also = "" if remat == config.compute.remat else f" and compute.remat={remat}"
                return f"set train.accumulation_steps={steps}{also}"
    return "use more devices"


def _indivisible(config: Config, num_devices: int, num_slices: int) -> str:
    """Returns what to say if no layout that divides the model divides the batch."""
    train, meshes = config.train, dividing_meshes(config, num_devices, num_slices)
    advice = "use another number of devices"  # that divides the model
    for steps in mesh_lib.divisors(train.accumulation_steps):
        fewer = dataclasses.replace(train, accumulation_steps=steps)
        if any(_divide_batch(dataclasses.replace(config, train=fewer), meshes)):
            advice = f"set train.accumulation_steps={steps}"  # the largest of those that do
    if meshes and "accumulation" not in advice:
        unit = max(data * fsdp for data, fsdp, _ in meshes) * train.accumulation_steps
        above = -(-train.batch_size // unit) * unit
        advice = f"set train.batch_size={above}, or use fewer devices"
    rows = train.batch_size // train.accumulation_steps
    return (
        f"mesh is unset, and no layout of {num_devices} devices divides this model and "
        f"microbatches of {rows} sequences (train.batch_size={train.batch_size}, "
        f"train.accumulation_steps={train.accumulation_steps}): {advice}"
    )
