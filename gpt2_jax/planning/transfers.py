"""What a step moves between devices, and what its layout needs on paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gpt2_jax.config import Config
from gpt2_jax.model.flops import num_params

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Transfer:
    """One transfer in a step, between two devices or more.

    Attributes:
      kind: one of KINDS.
      of: "parameters" (gathered), "gradients" (reduced), "activations", or "scalars" for whatever
        is too small to matter.
      axes: the mesh axes that the devices lie along.
      group: devices that take part together.
      count: times it runs in a step; 0 on paper, which leaves open in how many pieces it goes.
      bytes: of the whole arrays, over all its runs: of what a gather or a reduction results in, of
        what goes into a reduce-scatter.
      asynchronous: whether other work goes on meanwhile.
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
        """Bytes that each device sends, in a ring.

        That is all but its own part, twice that to reduce everything everywhere; a permute sends
        the array as it is.
        """
        if self.kind == "collective-permute":
            return self.bytes
        share = (self.group - 1) / self.group
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def summed(transfers: Iterable[Transfer]) -> list[Transfer]:
    """Those that differ in count and bytes alone made one; the most bytes first."""
    sums: dict[Transfer, Transfer] = {}
    for one in transfers:
        key = dataclasses.replace(one, count=0, bytes=0)
        total = sums.get(key, key)
        sums[key] = dataclasses.replace(
            total, count=total.count + one.count, bytes=total.bytes + one.bytes
        )
    return sorted(sums.values(), key=lambda transfer: -transfer.bytes)


def on_paper(config: Config, axis_sizes: Mapping[str, int]) -> list[Transfer]:
    """The least that a step has to move in this layout, in the compute dtype.

    FSDP gathers each parameter twice in a microbatch, for the forward and for the backward pass,
    and reduces its gradient once; replicas reduce the part of it that a device keeps; tensor
    parallelism reduces activations four times a layer. All of it while other work goes on.
    """
    data, fsdp, tensor = (axis_sizes[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if config.model.dtype == "bfloat16" else 4
    weights = num_params(config.model, padded=True) / tensor * width
    weights *= config.train.accumulation_steps
    tokens = config.tokens_per_step / (data * fsdp)
    activations = 4 * config.model.num_layers * tokens * config.model.d_model * width
    moved = [
        ("all-gather", "parameters", "fsdp", 2 * weights),
        ("reduce-scatter", "gradients", "fsdp", weights),
        ("all-reduce", "gradients", "data", weights / fsdp),
        ("all-reduce", "activations", "tensor", activations),
    ]
    return [
        Transfer(kind, of, (axis,), axis_sizes[axis], count=0, bytes=size, asynchronous=True)
        for kind, of, axis, size in moved
        if axis_sizes[axis] > 1
    ]
