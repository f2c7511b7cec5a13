from __future__ import annotations

import dataclasses
import random

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from gpt2_jax.config import MeshConfig, TrainConfig
from gpt2_jax.errors import UserError
from gpt2_jax.parallel.mesh import (
    AXES,
    batch_shards,
    check_batch,
    describe,
    divisors,
    make_mesh,
    resolve_axes,
    rows_per_device,
)


@pytest.mark.parametrize(
    ("axes", "devices", "sizes"),
    [
        ((-1, 1, 1), 8, (8, 1, 1)),
        ((1, -1, 1), 8, (1, 8, 1)),
        ((2, 2, -1), 8, (2, 2, 2)),
        ((2, 2, -1), 4, (2, 2, 1)),
        ((1, 2, 4), 8, (1, 2, 4)),
        ((-1, 1, 1), 1, (1, 1, 1)),
        # An unset data, or otherwise fsdp, is -1 if nothing is; the rest is 1.
        ((None, None, None), 8, (8, 1, 1)),
        ((None, 4, None), 8, (2, 4, 1)),
        ((4, None, None), 8, (4, 2, 1)),
        ((8, None, None), 8, (8, 1, 1)),
        ((None, -1, None), 8, (1, 8, 1)),
        ((None, None, 2), 8, (4, 1, 2)),
        ((2, None, 2), 8, (2, 2, 2)),
        ((None, None, -1), 8, (1, 1, 8)),
        ((-1, None, None), 8, (8, 1, 1)),
    ],
)
def test_minus_one_and_unset_axes_are_the_devices_left_over(axes, devices, sizes):
    assert resolve_axes(MeshConfig(*axes), devices) == sizes


@pytest.mark.parametrize(
    ("axes", "devices", "why"),
    [
        ((3, 1, 1), 8, "that would be 3"),
        ((2, 2, 1), 8, "that would be 4"),
        ((-1, 3, 1), 8, "8 cannot be divided by fsdp=3"),
        ((-1, 3, 2), 8, "8 cannot be divided by fsdp=3 x tensor=2"),
        ((16, 1, 1), 8, "that would be 16"),
    ],
)
def test_axes_that_do_not_fit_name_the_sizes_that_do(axes, devices, why):
    with pytest.raises(UserError) as caught:
        resolve_axes(MeshConfig(*axes), devices)
    message = str(caught.value)
    assert f"data={axes[0]} x fsdp={axes[1]} x tensor={axes[2]}" in message
    assert "1 or 2 or 4 or 8" in message and f"8 device(s): {why}; the axes" in message
    with pytest.raises(UserError, match=r"1 device.*JAX_NUM_CPU_DEVICES"):
        resolve_axes(MeshConfig(1, 2, 1), 1)


def test_divisors_are_all_there_in_order_however_large_the_number():
    for number in (1, 2, 12, 13, 36, 97):
        assert divisors(number) == [n for n in range(1, number + 1) if number % n == 0]
    assert divisors(2**31) == [2**i for i in range(32)]


def test_the_mesh_has_auto_axes_over_all_devices_or_those_given():
    mesh = make_mesh(MeshConfig(2, -1, 2))
    assert describe(mesh) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh.axis_names == AXES and set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())
    two = jax.devices()[:2]
    assert list(make_mesh(MeshConfig(), two).devices.flat) == two


@dataclasses.dataclass(frozen=True)
class _Chip:
    """What placing a mesh on TPU slices reads of a device."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    core_on_chip: int = 0
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def _slices(count, side=4):
    """Chips of `count` slices of side x side, mixed as no order may be relied on."""
    chips = [
        _Chip(s * side**2 + y * side + x, (x, y, 0), s)
        for s in range(count)
        for y in range(side)
        for x in range(side)
    ]
    random.Random(0).shuffle(chips)
    return chips


@pytest.mark.parametrize(
    ("slices", "axes"), [(2, (2, 16, 1)), (2, (-1, 4, 2)), (4, (8, 8, 1)), (2, (32, 1, 1))]
)
def test_fsdp_and_tensor_stay_inside_of_a_slice(slices, axes):
    grid = make_mesh(MeshConfig(*axes), _slices(slices)).devices
    index = np.vectorize(lambda chip: chip.slice_index)(grid)
    assert (index == index[:, :1, :1]).all()
    # Replicas of one slice are neighbors along data, so that they reduce among themselves first.
    assert index[:, 0, 0].tolist() == sorted(index[:, 0, 0].tolist())
    assert np.unique(index).tolist() == list(range(slices))


@pytest.mark.parametrize("axes", [(1, 32, 1), (-1, 32, 1), (1, 16, 2), (1, -1, 1)])
def test_an_axis_other_than_data_over_slices_is_refused(axes):
    with pytest.raises(UserError, match=r"2 TPU slices of 16 devices: only data may span slices"):
        make_mesh(MeshConfig(*axes), _slices(2))


def test_the_batch_is_cut_over_data_and_fsdp_but_not_tensor():
    assert batch_shards(make_mesh(MeshConfig(2, 2, 2))) == 4
    assert batch_shards(make_mesh(MeshConfig(1, 1, 8))) == 1


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "suggestion"),
    [(12, 1, "try 8 or 16"), (3, 1, "try 8"), (40, 4, "try 32 or 64")],
)
def test_a_batch_that_does_not_divide_names_those_that_do(batch_size, accumulation, suggestion):
    train = TrainConfig(batch_size=batch_size, accumulation_steps=accumulation)
    with pytest.raises(UserError, match=rf"batch_size={batch_size} .*; {suggestion}$"):
        check_batch(train, make_mesh(MeshConfig()))


def test_a_batch_whose_microbatches_divide_passes_and_is_cut_evenly():
    train, mesh = TrainConfig(batch_size=32, accumulation_steps=4), make_mesh(MeshConfig(2, 2, 2))
    check_batch(train, mesh)
    # Devices along tensor hold the same rows.
    assert rows_per_device(train, describe(mesh)) == rows_per_device(train, mesh.shape) == 2
