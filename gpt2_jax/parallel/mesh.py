"""From a config line to a data x fsdp x tensor mesh of devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from gpt2_jax.config import MeshConfig, TrainConfig
from gpt2_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the axes the batch is cut over
_LISTED = 16  # sizes that a message names one by one


def resolve_axes(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Sizes of the (data, fsdp, tensor) axes with -1 filled in.

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    sizes = [getattr(config, axis) for axis in AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
        fits = divisors(num_devices)
        each = " or ".join(map(str, fits)) if len(fits) <= _LISTED else "a divisor of it"
        rule = f"the axes must multiply to {num_devices}, each {each}, one of them -1 for the rest"
        if num_devices == 1:
            rule = "leave them at 1; to try a layout without the devices: JAX_NUM_CPU_DEVICES=8"
        raise UserError(f"mesh {asked} does not fit {num_devices} device(s): {rule}")
    data, fsdp, tensor = (num_devices // fixed if size == -1 else size for size in sizes)
    return data, fsdp, tensor


def divisors(number: int) -> list[int]:
    """The divisors of a number above 0, in order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices (or those given), with Auto axes as linen's logical sharding needs.

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = resolve_axes(config, len(devices))
    # jax.make_mesh would refuse to lay two axes along one dimension of a TPU slice's torus.
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_mesh(config: MeshConfig, num_devices: int) -> AbstractMesh:
    """The mesh over as many devices that are not there.

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    sizes = resolve_axes(config, num_devices)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Number of parts the batch is cut into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rows_per_device(train: TrainConfig, axis_sizes: Mapping[str, int]) -> int:
    """Sequences of a microbatch on one device, for a batch that `check_batch` lets pass."""
    shards = math.prod(axis_sizes[axis] for axis in BATCH_AXES)
    return train.batch_size // train.accumulation_steps // shards


def check_batch(train: TrainConfig, mesh: Mesh | AbstractMesh) -> None:
    """Refuses a batch whose microbatches do not divide over the mesh.

    Raises:
      UserError: with the nearest batch sizes that do.
    """
    unit = batch_shards(mesh) * train.accumulation_steps
    if train.batch_size % unit:
        below, above = train.batch_size // unit * unit, -(-train.batch_size // unit) * unit
        valid = " or ".join(str(size) for size in (below, above) if size)
        shape = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        raise UserError(
            f"train.batch_size={train.batch_size} must be a multiple of mesh {shape} x "
            f"train.accumulation_steps={train.accumulation_steps} = {unit}; try {valid}"
        )


def describe(mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """The mesh as {axis: size}."""
    return {axis: mesh.shape[axis] for axis in AXES}
