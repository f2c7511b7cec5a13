"""Reads the instructions of an optimized XLA program from its text, and how often each one runs.

XLA's own `cost_analysis()` counts the body of a loop once. Here each instruction counts as often as
it runs: a scan is a `while` whose condition holds its trip count as a constant. This is written for
programs compiled for TPUs (libtpu 0.0.5x); programs for CPUs and GPUs can be read, but have no
cycles.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_DTYPE_BITS = {"pred": 8, "bf16": 16} | {
    f"{kind}{bits}": bits for kind in "usfc" for bits in (2, 4, 8, 16, 32, 64, 128)
}
# XLA marks a missing estimate with a number near 2^60.
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
    """Describes one array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Returns the number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Returns the bytes of the elements, without padding."""
        return self.elements * _DTYPE_BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Holds one instruction: `name = arrays opcode(operands), attributes`."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    text: str

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Returns {computation that it runs: role}, such as `body` or `condition` of a while."""
        called = {}
        for match in _CALLED.finditer(self.text):
            role = match.group(0).split("=")[0]
            names = match.group(1) or match.group(2)
            called |= {name.strip().lstrip("%"): role for name in names.split(",")}
        return called

    @property
    def op_name(self) -> str:
        """Returns its path in the traced program; "" if XLA gives none."""
        match = re.search(r'op_name="([^"]*)"', self.text)
        return match.group(1) if match else ""


class Program:
    """Holds an optimized program as computations, each a list of instructions."""

    def __init__(self, text: str) -> None:
        """Reads the text of `jax.stages.Compiled.as_text()`."""
        self.computations: dict[str, list[Instruction]] = {}
        self._entry = ""
        for name, is_entry, instructions in _computations(text):
            self.computations[name] = instructions
            self._entry = name if is_entry else self._entry

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """Returns how often each computation runs in a step, including those inside fusions."""
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
    def inside(self) -> frozenset[str]:
        """Returns the computations that are part of one instruction, as of a fusion."""
        inside: set[str] = set()
        for instructions in self.computations.values():
            for instruction in instructions:
                if instruction.opcode not in ("while", "call", "conditional"):
                    inside |= set(instruction.called)
        return frozenset(inside)

    def _trip_count(self, loop: Instruction) -> int:
        """Returns the largest integer constant in the loop's condition; 1 if it has none."""
        condition = next(name for name, role in loop.called.items() if role == "condition")
        pending, constants = [condition], [1]
        while pending:
            for instruction in self.computations.get(pending.pop(), ()):
                pending += instruction.called
                if instruction.opcode == "constant":
                    constants += map(int, re.findall(r"constant\((\d+)\)", instruction.text))
        return max(constants)

    def _scheduled(self) -> Iterator[tuple[Instruction, int]]:
        """Yields every instruction that is scheduled by itself, and how often it runs."""
        for name, instructions in self.computations.items():
            if name not in self.inside:
                for instruction in instructions:
                    yield instruction, self.runs[name]

    def cycles(self) -> int:
        """Returns XLA's estimate of the cycles of a TPU core in a step, without Pallas kernels."""
        total = 0
        for instruction, times in self._scheduled():
            match = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
            if match and int(match.group(1)) < _MOST_CYCLES:
                total += times * int(match.group(1))
        return total

    def kernels(self) -> list[tuple[str, int]]:
        """Returns (op_name, runs) of every kernel that is not XLA's: Pallas on a TPU."""
        return [
            (instruction.op_name, times)
            for instruction, times in self._scheduled()
            if instruction.opcode == "custom-call" and '"tpu_custom_call"' in instruction.text
        ]


def _computations(text: str) -> Iterator[tuple[str, bool, list[Instruction]]]:
    """Yields (name, whether it is the entry, instructions) of each computation.

    An instruction may span many lines, because a kernel's metadata contains newlines; one of them
    may begin with `}}`. A computation ends with a line that is exactly `}`.
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
    # Layouts contain parentheses, too, but never behind a lower-case word.
    opcode = _OPCODE.search(text)
    if opcode is None:
        return None
    arrays = tuple(
        Array(dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(text[: opcode.start()])
        if dtype in _DTYPE_BITS
    )
    return Instruction(name, arrays, opcode.group(1), text)
