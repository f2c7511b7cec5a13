"""Reads the collectives of a compiled program as transfers along the axes of its mesh.

Between TPU slices, a program sends arrays to the host and receives the result of a collective over
the data center's network; those are transfers along NETWORK.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gpt2_jax.planning.hlo import Array, Instruction, Program
from gpt2_jax.planning.transfers import KINDS, NETWORK, Transfer


def transfers(
    program: Program,
    axis_sizes: Mapping[str, int],
    classify: Callable[[str, Sequence[Array]], str],
    num_slices: int = 1,
) -> list[Transfer]:
    """Returns every transfer of a step.

    Args:
      program: the compiled program.
      axis_sizes: sizes of the axes of the mesh that it was compiled for, in order.
      classify: (kind, arrays) -> what the arrays are, as `Transfer.of` names it.
      num_slices: number of TPU slices that it was compiled for.
    """
    found: list[Transfer] = []
    begun = _begun_channels(program)
    for computation, instructions in program.computations.items():
        for instruction in instructions:
            between_slices = _network_kind(instruction)
            if between_slices is not None:
                runs = program.runs[computation]
                array = instruction.arrays[0]  # (what is sent, context, token)
                # The array's tiles have no axis of their own to classify it by.
                flat = [Array(array.dtype, (array.elements,))]
                found.append(
                    Transfer(
                        kind=between_slices,
                        of=classify(between_slices, flat),
                        axes=(NETWORK,),
                        group=num_slices,
                        count=runs,
                        bytes=runs * array.bytes,
                        asynchronous=True,
                    )
                )
            elif _kind(instruction) in KINDS:
                # An asynchronous collective is written, with its channel, into the fusion that
                # begins it, every fusion that it overlaps with, and the one that ends it. The
                # layers of an unrolled scan share a channel, too, but each of them runs.
                continues = computation in program.inside and not _begins(instructions)
                if continues and _channel(instruction) in begun:
                    continue
                found.append(_transfer(program, computation, instruction, axis_sizes, classify))
    return [transfer for transfer in found if transfer.group > 1]


def _begun_channels(program: Program) -> set[str]:
    """Returns the channels of the collectives that a TPU program begins in one fusion."""
    channels = {
        _channel(instruction)
        for instructions in program.computations.values()
        if _begins(instructions)
        for instruction in instructions
        if _kind(instruction) in KINDS
    }
    return {channel for channel in channels if channel is not None}


def _begins(instructions: Sequence[Instruction]) -> bool:
    return any("AsyncCollectiveStart" in instruction.text for instruction in instructions)


def _channel(instruction: Instruction) -> str | None:
    match = re.search(r"channel_id=(\d+)", instruction.text)
    return match.group(1) if match else None


def _transfer(
    program: Program,
    computation: str,
    instruction: Instruction,
    axis_sizes: Mapping[str, int],
    classify: Callable[[str, Sequence[Array]], str],
) -> Transfer:
    kind, arrays = _kind(instruction), instruction.arrays
    starts = instruction.opcode.endswith("-start")
    if starts and kind != "all-reduce":
        arrays = arrays[1:2]  # (operand, result, ...)
    groups = _groups(instruction.text, axis_sizes)
    axes = _axes(groups, axis_sizes)
    # A permute has pairs instead of groups. Of several slices, a group has the devices of one.
    all_devices = math.prod(axis_sizes[axis] for axis in axes)
    group = all_devices if kind == "collective-permute" else min(len(groups[0]), all_devices)
    if kind == "reduce-scatter":
        arrays = tuple(Array(array.dtype, (group, *array.dims)) for array in arrays)
    elif kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # a TPU program expresses it so
    runs = program.runs[computation]
    return Transfer(
        kind=kind,
        of=classify(kind, arrays),
        axes=axes,
        group=group,
        count=runs,
        bytes=runs * sum(array.bytes for array in arrays),
        asynchronous=starts or _begins(program.computations[computation]),
    )


def _kind(instruction: Instruction) -> str:
    return instruction.opcode.removesuffix("-start")


def _network_kind(instruction: Instruction) -> str | None:
    """Returns the kind of a collective between TPU slices; None for other instructions."""
    if instruction.opcode != "send":  # what is received is the result of the same collective
        return None
    match = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.text)
    if match is None:
        return None
    kind = match.group(1).lower().replace("_", "-")
    if kind not in KINDS:
        raise ValueError(f"unknown transfer between slices: {instruction.text[:200]}")
    return kind


def _groups(text: str, axis_sizes: Mapping[str, int]) -> list[list[int]]:
    """Returns the devices of the first group, or of each pair of a permute, by index in the mesh.

    XLA writes groups as lists, as an order of all devices divided into groups, or as mesh axes.

    Raises:
      ValueError: for any other notation.
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


# An order of all devices: a grid in counting order, whose axes are then permuted.
_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"


def _devices(grid: str, permutation: str | None) -> np.ndarray:
    sizes = _numbers(grid)
    order = _numbers(permutation) if permutation else range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(order)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _axes(groups: Sequence[Sequence[int]], axis_sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the mesh axes along which the devices of a group differ."""
    sizes = list(axis_sizes.values())
    coordinates = [np.unravel_index(np.asarray(group), sizes) for group in groups]
    return tuple(
        axis
        for i, axis in enumerate(axis_sizes)
        if any(len(np.unique(group[i])) > 1 for group in coordinates)
    )
