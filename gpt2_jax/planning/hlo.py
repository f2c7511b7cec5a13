"""What an optimized XLA program moves between devices and computes, read from its text.

XLA's own `cost_analysis()` counts the body of a loop once. Here each instruction counts as often as
it runs: a scan is a `while` whose trip count stands as a constant in its condition. Written for
programs compiled for TPUs (libtpu 0.0.5x); those for CPUs and GPUs read too, without cycles.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_DTYPE_BITS = {"pred": 8, "bf16": 16} | {
    f"{kind}{bits}": bits for kind in "usfc" for bits in (2, 4, 8, 16, 32, 64, 128)
}
# XLA's mark for "not estimated" lies near 2^60.
_MOST_CYCLES = 2**50

_COMPUTATION = re.compile(r"^(ENTRY )?%?(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?(\S+) = (.*)$", re.DOTALL)
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_OPCODE = re.compile(r"\s([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(
    r"\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.-]+)"
    r"|\bbranch_computations=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of one array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """How many bytes those take, padding left out."""
        return self.elements * _DTYPE_BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: `name = arrays opcode(operands), attributes`."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    text: str

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Computations it runs, {name: role}, such as `body` and `condition` of a while."""
        found = {}
        for match in _CALLED.finditer(self.text):
            role = match.group(0).split("=")[0]
            names = match.group(1) or match.group(2)
            found |= {name.strip().lstrip("%"): role for name in names.split(",")}
        return found

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        start = self.text.index(f"{self.opcode}(") + len(self.opcode) + 1
        return re.findall(r"%([\w.-]+)", self.text[start : self.text.index(")", start)])

    @property
    def op_name(self) -> str:
        """The path in the traced program that it comes from, "" where XLA does not say."""
        match = re.search(r'op_name="([^"]*)"', self.text)
        return match.group(1) if match else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One transfer between devices.

    Attributes:
      kind: one of KINDS.
      count: times it runs in a step.
      arrays: what it is about, whole: the result of a gather or a reduction, what goes into a
        reduce-scatter.
      group: devices that take part together.
      axes: the mesh axes they lie along.
      asynchronous: whether other work goes on meanwhile.
      op_name: where it comes from.
    """

    kind: str
    count: int
    arrays: tuple[Array, ...]
    group: int
    axes: tuple[str, ...]
    asynchronous: bool
    op_name: str

    @property
    def bytes(self) -> int:
        """Bytes of `arrays`, over all its runs in a step."""
        return self.count * sum(array.bytes for array in self.arrays)


class Program:
    """An optimized program as computations of instructions, each with the times it runs."""

    def __init__(self, text: str) -> None:
        """Reads the text of `jax.stages.Compiled.as_text()`."""
        self.computations: dict[str, list[Instruction]] = {}
        self._entry = ""
        for name, is_entry, instructions in _computations(text):
            self.computations[name] = instructions
            self._entry = name if is_entry else self._entry

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """How often each computation runs in a step, those inside fusions included."""
        runs: dict[str, int] = collections.defaultdict(int)
        pending = [(self._entry, 1)]
        while pending:
            name, times = pending.pop()
            runs[name] += times
            for instruction in self.computations.get(name, ()):
                trips = 1
                if instruction.opcode == "while":
                    trips = self._trip_count(instruction)
                pending += [(called, times * trips) for called in instruction.called]
        return runs

    @functools.cached_property
    def _inside(self) -> frozenset[str]:
        """Computations that are part of one instruction: of a fusion or a reduction."""
        inside: set[str] = set()
        for instructions in self.computations.values():
            for instruction in instructions:
                if instruction.opcode not in ("while", "call", "conditional"):
                    inside |= set(instruction.called)
        return frozenset(inside)

    def _trip_count(self, loop: Instruction) -> int:
        """The largest integer constant that the condition compares with; 1 where there is none."""
        condition = next(name for name, role in loop.called.items() if role == "condition")
        pending, constants = [condition], [1]
        while pending:
            for instruction in self.computations.get(pending.pop(), ()):
                pending += instruction.called
                if instruction.opcode == "constant":
                    constants += map(int, re.findall(r"constant\((\d+)\)", instruction.text))
        return max(constants)

    def _steps(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that is scheduled by itself, with its runs."""
        for name, instructions in self.computations.items():
            if name not in self._inside:
                for instruction in instructions:
                    yield instruction, self.runs[name]

    def cycles(self) -> int:
        """XLA's estimate of the cycles a TPU core computes in a step, without kernels of Pallas."""
        total = 0
        for instruction, times in self._steps():
            match = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
            if match and int(match.group(1)) < _MOST_CYCLES:
                total += times * int(match.group(1))
        return total

    def kernels(self) -> list[tuple[str, int]]:
        """(op_name, runs) of every kernel that XLA did not write: Pallas on a TPU."""
        return [
            (instruction.op_name, times)
            for instruction, times in self._steps()
            if instruction.opcode == "custom-call" and '"tpu_custom_call"' in instruction.text
        ]

    def collectives(self, axis_sizes: Mapping[str, int]) -> list[Collective]:
        """Every transfer of a step.

        Args:
          axis_sizes: of the mesh the program was compiled for, in order.
        """
        found: dict[str, Collective] = {}
        for name, instructions in self.computations.items():
            for instruction in instructions:
                kind = _kind(instruction)
                if kind is None:
                    continue
                # An asynchronous gather stands in every fusion that it runs beside, under one
                # channel.
                channel = re.search(r"channel_id=(\d+)", instruction.text)
                key = channel.group(1) if channel else instruction.name
                if key not in found:
                    found[key] = self._collective(name, instruction, kind, axis_sizes)
        return list(found.values())

    def _collective(
        self, computation: str, instruction: Instruction, kind: str, axis_sizes: Mapping[str, int]
    ) -> Collective:
        arrays = instruction.arrays
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            arrays = arrays[1:2]  # (operand, result, ...)
        if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # this is how a TPU program spells it
        axes = _axes(_groups(instruction.text, axis_sizes), axis_sizes)
        group = math.prod(axis_sizes[axis] for axis in axes)
        if kind == "reduce-scatter" and instruction.opcode.startswith("reduce-scatter"):
            arrays = tuple(Array(a.dtype, (group, *a.dims)) for a in arrays)
        return Collective(
            kind=kind,
            count=self.runs[computation],
            arrays=arrays,
            group=group,
            axes=axes,
            asynchronous=instruction.opcode.endswith("-start")
            or any("AsyncCollective" in other.text for other in self.computations[computation]),
            op_name=instruction.op_name,
        )


def _computations(text: str) -> Iterator[tuple[str, bool, list[Instruction]]]:
    """(name, whether it is the entry, instructions) of each computation.

    An instruction may go over many lines, for a kernel's metadata has newlines in it; among them
    may be one that begins with `}}`. A computation ends with a line that is exactly `}`.
    """
    name, is_entry = "", False
    lines: list[str] = []
    for line in text.splitlines():
        if not name:
            if match := _COMPUTATION.match(line):
                name, is_entry = match.group(2), bool(match.group(1))
        elif line == "}":
            yield name, is_entry, [i for i in map(_instruction, lines) if i]
            name, lines = "", []
        elif _INSTRUCTION.match(line):
            lines.append(line)
        elif lines:
            lines[-1] += "\n" + line


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    name, text = match.groups()
    # Layouts have parentheses too, but no lower-case word before them.
    opcode = _OPCODE.search(text)
    if opcode is None:
        return None
    arrays = tuple(
        Array(dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(text[: opcode.start()])
        if dtype in _DTYPE_BITS
    )
    return Instruction(name, arrays, opcode.group(1), text)


def _kind(instruction: Instruction) -> str | None:
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _groups(text: str, axis_sizes: Mapping[str, int]) -> list[list[int]]:
    """Devices that exchange, by their number in the mesh: the first group, or a permute's pairs.

    XLA writes groups as lists, as an order of all devices cut into groups, or as axes of a mesh.

    Raises:
      ValueError: for any other way.
    """
    if match := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
        return [[int(n) for n in pair] for pair in re.findall(r"\{(\d+),(\d+)\}", match.group(1))]
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return [_numbers(match.group(1))]
    if match := re.search(rf"replica_groups=\[([\d,]+)\]<={_ORDER}", text):
        shape, *order = match.groups()
        return [_devices(*order).reshape(_numbers(shape))[0].tolist()]
    if match := re.search(
        rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_ORDER}\))? \{{([^}}]*)\}}", text
    ):
        mesh, grid, permutation, chosen = match.groups()
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh)}
        devices = _devices(grid or str(math.prod(sizes.values())), permutation)
        names = re.findall(r"'(\w+)'", chosen)
        first = tuple(slice(None) if name in names else 0 for name in sizes)
        return [devices.reshape(list(sizes.values()))[first].ravel().tolist()]
    if "replica_groups={}" in text or "replica_groups" not in text:
        return [list(range(math.prod(axis_sizes.values())))]
    raise ValueError(f"unknown replica_groups: {text[text.index('replica_groups') :][:200]}")


# All devices in an order: counted through a grid whose axes are then permuted.
_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"


def _devices(grid: str, permutation: str | None) -> np.ndarray:
    sizes = _numbers(grid)
    order = _numbers(permutation) if permutation else range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(order)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _axes(groups: Sequence[Sequence[int]], axis_sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    sizes = list(axis_sizes.values())
    coordinates = [np.unravel_index(np.asarray(group), sizes) for group in groups]
    return tuple(
        axis
        for i, axis in enumerate(axis_sizes)
        if any(len(np.unique(group[i])) > 1 for group in coordinates)
    )
