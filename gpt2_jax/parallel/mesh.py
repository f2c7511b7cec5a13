"""Makes the data x fsdp x tensor mesh of devices that a config describes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from gpt2_jax.config import MeshConfig, TrainConfig
from gpt2_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the axes that divide the batch
_LISTED = 16  # sizes that a message names one by one


def resolve_axes(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Returns the sizes of the (data, fsdp, tensor) axes with -1 and unset ones filled in.

    If no axis is -1, an unset data, or otherwise an unset fsdp, is; other unset axes are 1. So with
    all of them unset, every device is on data.

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    given = dataclasses.asdict(config)
    if -1 not in given.values():
        rest = next((axis for axis in ("data", "fsdp") if given[axis] is None), None)
        given |= {} if rest is None else {rest: -1}
    sizes = [1 if given[axis] is None else given[axis] for axis in AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    requested = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
        fits = divisors(num_devices)
        each = " or ".join(map(str, fits)) if len(fits) <= _LISTED else "a divisor of it"
        rule = f"the axes must multiply to {num_devices}, each {each}, one of them -1 for the rest"
        if num_devices == 1:
            rule = "leave them at 1, or use more devices (JAX_NUM_CPU_DEVICES=8 makes 8 of a CPU)"
        why = f"that would be {fixed}"
        if -1 in sizes:
            set_axes = zip(AXES, sizes, strict=True)
            named = " x ".join(f"{axis}={size}" for axis, size in set_axes if size not in (-1, 1))
            why = f"{num_devices} cannot be divided by {named}"
        raise UserError(f"mesh {requested} does not fit {num_devices} device(s): {why}; {rule}")
    data, fsdp, tensor = (num_devices // fixed if size == -1 else size for size in sizes)
    return data, fsdp, tensor


def is_unset(config: MeshConfig) -> bool:
    """Returns whether no axis is set, so that a run may choose them."""
    return all(size is None for size in dataclasses.asdict(config).values())


def divisors(number: int) -> list[int]:
    """Returns the divisors of a positive number, in order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh over all devices, or those given; its axes are Auto, as linen needs.

    On several TPU slices the data axis spans the slices, and fsdp and tensor stay inside of one:
    the network between slices is an order of magnitude slower than the links within.

    Raises:
      UserError: if the axes do not multiply to the number of devices, or an axis other than data
        would span slices.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = resolve_axes(config, len(devices))
    slices = num_slices(devices)
    check_slices((data, fsdp, tensor), slices)
    # jax.make_mesh would refuse to lay two axes along one dimension of a TPU slice's torus.
    if slices == 1:
        grid = mesh_utils.create_device_mesh(
            (data, fsdp, tensor), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            (data // slices, fsdp, tensor),
            (slices, 1, 1),
            devices,
            allow_split_physical_axes=True,
        )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_slices(devices: Sequence[Any]) -> int:
    """Returns how many TPU slices the devices are on; 1 for devices that are no TPUs."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def check_slices(sizes: tuple[int, int, int], slices: int) -> None:
    """Checks that the sizes of (data, fsdp, tensor) keep fsdp and tensor inside of a TPU slice.

    Raises:
      UserError: if they do not.
    """
    if sizes[0] % slices:
        layout = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        per_slice = math.prod(sizes) // slices
        raise UserError(
            f"mesh {layout} does not fit {slices} TPU slices of {per_slice} devices: only data may "
            f"span slices, so mesh.data must be a multiple of {slices}, and fsdp x tensor must "
            f"divide {per_slice}"
        )


def abstract_mesh(config: MeshConfig, num_devices: int) -> AbstractMesh:
    """Returns the mesh over so many devices, none of which needs to exist.

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    sizes = resolve_axes(config, num_devices)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts that the batch is divided into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rows_per_device(train: TrainConfig, axis_sizes: Mapping[str, int]) -> int:
    """Returns the sequences of a microbatch on one device, for a batch that divides evenly."""
    shards = math.prod(axis_sizes[axis] for axis in BATCH_AXES)
    return train.batch_size // train.accumulation_steps // shards


def check_batch(train: TrainConfig, mesh: Mesh | AbstractMesh) -> None:
    """Checks that the microbatches of a batch divide evenly over the mesh.

    Raises:
      UserError: with the nearest batch sizes that do, if they do not.
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
    """Returns the mesh as {axis: size}."""
    return {axis: mesh.shape[axis] for axis in AXES}


def axes_text(axis_sizes: Mapping[str, int]) -> str:
    """Returns the mesh as text, such as "data 4 x fsdp 2 x tensor 1"."""
    return " x ".join(f"{axis} {size}" for axis, size in axis_sizes.items())
