"""What a step moves between devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

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
      count: times it runs in a step.
      bytes: of the whole arrays, over all its runs: of what a gather or a reduction results in, of
        what goes into a reduce-scatter.
      asynchronous: whether other work goes on meanwhile.
    """

    kind: str
    of: str
    axes: tuple[str, ...]
    group: int
    count: int
    bytes: int
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
