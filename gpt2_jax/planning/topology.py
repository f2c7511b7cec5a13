"""Describes TPU slices, one or several, and makes their devices on a machine without a TPU."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.parallel.chips import Chip, chip_named
from gpt2_jax.planning.transfers import NETWORK

_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
_CUBES = (
    "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x12 8x8x16 8x16x16 12x12x12 "
    "12x16x16 16x16x16"
)
# The slices in Google Cloud's TPU documentation; libtpu accepts others that are not on offer.
SLICES: dict[str, tuple[str, ...]] = {
    "v4": tuple(_CUBES.split()),
    "v5e": tuple(_FLAT.split()),
    "v5p": (*_CUBES.split(), "16x16x24"),
    "v6e": tuple(_FLAT.split()),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Describes TPU slices of one shape, such as v5e:4x4: 16 chips in a square.

    Attributes:
      chip: the figures of a chip.
      shape: the chips of a slice along each dimension.
      num_slices: how many such slices the data center's network connects.
    """

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def slice_name(self) -> str:
        """Returns the name of one slice as users and libtpu write it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def name(self) -> str:
        """Returns the name for people, such as `v5e:4x4` or `2 x v5e:4x4`."""
        return self.slice_name if self.num_slices == 1 else f"{self.num_slices} x {self.slice_name}"

    @property
    def num_devices(self) -> int:
        """Returns the number of chips of all slices, each of which is one JAX device."""
        return math.prod(self.shape) * self.num_slices

    def axis_bandwidth(self, mesh: Any) -> dict[str, float]:
        """Returns the bytes/s that a device can send along each axis of a mesh of these devices.

        Each dimension of the torus has two of a chip's links. Its ends are connected only if it is
        as long as that of a whole pod (or, in three dimensions, a multiple of 4); otherwise a ring
        has to return over the same links. The network between several slices is an axis, too.
        """
        bandwidth = {}
        flat = len(self.shape) == 2
        for i, axis in enumerate(mesh.axis_names):
            line = np.moveaxis(mesh.devices, i, 0)
            line = line.reshape(len(line), -1)[:, 0]
            coordinates = np.array([device.coords for device in line])[:, : len(self.shape)]
            bandwidth[axis] = 0.0
            for size, values in zip(self.shape, coordinates.T, strict=True):
                if len(set(values)) > 1:
                    connected = size == 16 if flat else size % 4 == 0
                    share = (1.0 if connected else 0.5) / len(self.shape)
                    bandwidth[axis] += self.chip.link_bandwidth * share
        if self.num_slices > 1 and self.chip.network_bandwidth is not None:
            bandwidth[NETWORK] = self.chip.network_bandwidth
        return bandwidth

    def devices(self) -> list[Any]:
        """Returns devices to compile for, which hold no arrays and run nothing.

        Raises:
          UserError: if libtpu is not installed.
        """
        if not libtpu_installed():
            raise UserError(
                "libtpu, which compiles for TPUs, is not installed: pip install 'gpt2_jax[tpu]'"
            )
        from jax.experimental import topologies

        # The two cores of a v4 chip act as one device, as they do on Google Cloud.
        options: dict[str, Any] = {"num_slices": self.num_slices} if self.num_slices > 1 else {}
        if self.chip.name == "v4":
            options["chip_config_name"] = "megacore"
        if math.prod(self.shape) == 1:  # otherwise libtpu assumes that a host has four
            options["chips_per_host_bounds"] = (1, 1, 1)
        with captured_stderr():  # libtpu warns that this machine has no TPU
            return topologies.get_topology_desc(
                platform="tpu", topology_name=self.slice_name, **options
            ).devices


def network_bandwidth(chip: Chip, data: int, num_slices: int) -> float:
    """Returns the bytes/s of a data axis that spans several slices, for one chip.

    The chips of a slice along the data axis first reduce among themselves over their links, so that
    each sends only its part between slices.

    Args:
      chip: the figures of a chip.
      data: the size of the whole data axis.
      num_slices: how many slices it spans.
    """
    assert chip.network_bandwidth is not None, "parse_topology refuses such chips"
    return min(chip.network_bandwidth * (data // num_slices), chip.link_bandwidth)


def parse_topology(name: str, num_slices: int = 1) -> Topology:
    """Returns the slices of a name such as `v5e:4x4`.

    Raises:
      UserError: for a chip or a shape that does not exist, a number of slices below 1, or several
        slices of a chip whose network is unknown.
    """
    if match := re.fullmatch(r"(v5litepod|v6e)-(\d+)", name):  # the cloud's name
        chip, count = {"v5litepod": "v5e"}.get(match[1], match[1]), int(match[2])
        for shape in SLICES[chip]:
            if math.prod(map(int, shape.split("x"))) == count:
                raise UserError(f"--topology {name}: write {chip}:{shape} instead")
    kind, colon, shape = name.partition(":")
    if not colon or kind not in SLICES:
        raise UserError(
            f"--topology {name}: give CHIP:SHAPE, such as v5e:4x4, with CHIP one of "
            f"{', '.join(SLICES)}{did_you_mean(kind, SLICES)}"
        )
    if shape not in SLICES[kind]:
        raise UserError(f"--topology {name}: {kind} comes as {', '.join(SLICES[kind])}")
    chip = chip_named(kind)
    if num_slices < 1:
        raise UserError(f"--slices must be at least 1, not {num_slices}")
    if num_slices > 1 and chip.network_bandwidth is None:
        known = ", ".join(each for each in SLICES if chip_named(each).network_bandwidth)
        raise UserError(
            f"--slices {num_slices}: the speed of the network between slices of {kind} is not "
            f"known; it is for {known}"
        )
    return Topology(chip, tuple(int(n) for n in shape.split("x")), num_slices)


def libtpu_installed() -> bool:
    """Returns whether the compiler for TPUs is installed."""
    return importlib.util.find_spec("libtpu") is not None


def compile_without_devices() -> None:
    """Makes JAX compute on the CPU and libtpu look for no TPU; call it before importing JAX."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no device is used, so none needs a lock
    # A compiled program cannot be loaded again without such a device.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Captures what the block writes to file descriptor 2, even from C++, as a list of lines."""
    sys.stderr.flush()
    lines: list[str] = []
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
