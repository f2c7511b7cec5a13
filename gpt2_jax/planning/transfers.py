"""Describes what a step transfers between devices, and the minimum that its layout needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gpt2_jax.config import Config
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.trainable import num_trained_params

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
NETWORK = "network"
"""The axis of transfers between TPU slices, which are a part of those along `data`."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Describes one transfer of a step, between two or more devices.

    Attributes:
      kind: one of KINDS.
      of: "parameters" (gathered), "gradients" (reduced), "activations", or "scalars" for arrays
        that are too small to matter.
      axes: the mesh axes along which the devices lie, or NETWORK alone.
      group: number of devices that take part together.
      count: how often it runs in a step; 0 in the minimum, which does not say in how many pieces.
      bytes: size of the whole arrays, over all runs: the result of a gather or an all-reduce, the
        input of a reduce-scatter.
      asynchronous: whether it overlaps with other work.
    """

    kind: str
    of: str
    axes: tuple[str, ...]
    group: int
    count: int
    bytes: float
    asynchronous: bool

    @property
    def sent_bytes(self) -> float:
        """Returns the bytes that each device sends, in a ring.

        That is the array without the device's own part, and twice as much for an all-reduce; a
        permute sends the array once.
        """
        if self.kind == "collective-permute":
            return self.bytes
        share = (self.group - 1) / self.group
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def merge_transfers(transfers: Iterable[Transfer]) -> list[Transfer]:
    """Returns the transfers, merged if they differ only in count and bytes, most bytes first."""
    sums: dict[Transfer, Transfer] = {}
    for transfer in transfers:
        key = dataclasses.replace(transfer, count=0, bytes=0)
        total = sums.get(key, key)
        sums[key] = dataclasses.replace(
            total, count=total.count + transfer.count, bytes=total.bytes + transfer.bytes
        )
    return sorted(sums.values(), key=lambda transfer: -transfer.bytes)


def minimum_transfers(config: Config, axis_sizes: Mapping[str, int]) -> list[Transfer]:
    """Returns the least that a step has to transfer in this layout, in the compute dtype.

    FSDP gathers each parameter twice per microbatch, for the forward and for the backward pass, and
    reduces its gradient once; replicas reduce the part of it that a device keeps; tensor
    parallelism reduces activations four times per layer. All of it overlaps with other work.
    """
    data, fsdp, tensor = (axis_sizes[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if config.compute.dtype == "bfloat16" else 4
    weights = num_params(config.model, padded=True) / tensor * width
    weights *= config.train.accumulation_steps
    gradients = weights * num_trained_params(config) / num_params(config.model)
    tokens = config.tokens_per_step / (data * fsdp)
    activations = 4 * config.model.num_layers * tokens * config.model.d_model * width
    moved = [
        ("all-gather", "parameters", "fsdp", 2 * weights),
        ("reduce-scatter", "gradients", "fsdp", gradients),
        ("all-reduce", "gradients", "data", gradients / fsdp),
        ("all-reduce", "activations", "tensor", activations),
    ]
    return [
        Transfer(kind, of, (axis,), axis_sizes[axis], count=0, bytes=size, asynchronous=True)
        for kind, of, axis, size in moved
        if axis_sizes[axis] > 1
    ]
