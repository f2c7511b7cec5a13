"""How long a step takes: from a compiled program, or from the shapes alone.

None of this has been checked against a clock on a TPU. So every estimate is a range, from what is
likely at best to what is likely at worst, and the constants that make it so stand here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.planning.aot import CompiledStep
from gpt2_jax.planning.transfers import Transfer, on_paper

# Each as (at best, at worst).
# XLA's cycles against what a chip takes: memory may be busier than the model thinks.
_CYCLES = (1.0, 1.25)
# Share of a chip's peak that the attention kernel reaches. With heads 64 wide half of a matrix unit
# of 128 columns lies idle, and the softmax takes the vector unit as long again.
_KERNEL_PEAK = (0.4, 0.15)
# Share of the links' bandwidth that a collective reaches.
_LINKS = (0.9, 0.5)
# Seconds that a collective takes whatever its size.
_LATENCY = (5e-6, 20e-6)
# Share of asynchronous transfers that the computation hides.
_HIDDEN = (1.0, 0.5)
# Without a program: the share of a chip's peak that the computation reaches. Published GPT-2 runs
# on A100 and H100 lie from 0.32 to 0.57 (docs/planning.md).
_ANALYTIC_PEAK = (0.57, 0.32)
# What remat computes over again, as a share of forward and backward: a forward pass is a third.
_RECOMPUTED = {"none": 0.0, "dots": 0.05, "full": 1 / 3}


# Of something: (at best, at worst).
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one optimizer step.

    Attributes:
      compute_seconds: of what a device computes in it.
      exposed_seconds: that it waits for transfers.
    """

    compute_seconds: Range
    exposed_seconds: Range

    @property
    def step_seconds(self) -> Range:
        """Of the whole step."""
        (best, worst), (least, most) = self.compute_seconds, self.exposed_seconds
        return best + least, worst + most


def from_program(
    config: Config, chip: Chip, axis_sizes: Mapping[str, int], step: CompiledStep
) -> Estimate:
    """The estimate for a compiled step.

    Raises:
      ValueError: for a chip whose clock the table lacks.
    """
    if chip.clock_hz is None:
        raise ValueError(f"no clock for {chip.name}")
    seconds, kernel_flops = step.cycles / chip.clock_hz, _kernel_flops(config, axis_sizes, step)
    best, worst = (
        seconds * _CYCLES[case] + kernel_flops / (chip.peak_bf16_flops * _KERNEL_PEAK[case])
        for case in (0, 1)
    )
    return _estimate((best, worst), step.transfers, step.links)


def from_shapes(config: Config, chip: Chip, axis_sizes: Mapping[str, int]) -> Estimate:
    """The estimate without a program: FLOPs, and the least that the layout has to move."""
    flops = flops_per_token(config.model) * config.tokens_per_step / math.prod(axis_sizes.values())
    flops *= 1 + _RECOMPUTED[config.model.remat]
    best, worst = (flops / (chip.peak_bf16_flops * share) for share in _ANALYTIC_PEAK)
    links = dict.fromkeys(axis_sizes, chip.link_bandwidth)
    return _estimate((best, worst), on_paper(config, axis_sizes), links)


def _estimate(
    compute: Range, transfers: Sequence[Transfer], links: Mapping[str, float]
) -> Estimate:
    best, worst = (_exposed_seconds(case, compute[case], transfers, links) for case in (0, 1))
    return Estimate(compute, (best, worst))


def _exposed_seconds(
    case: int, compute: float, transfers: Sequence[Transfer], links: Mapping[str, float]
) -> float:
    """Seconds of transfers that the computation does not hide, at best (0) or at worst (1)."""
    wait = {True: 0.0, False: 0.0}
    for transfer in transfers:
        bandwidth = sum(links[axis] for axis in transfer.axes) * _LINKS[case]
        seconds = transfer.sent_bytes / bandwidth + _LATENCY[case] * transfer.count
        wait[transfer.asynchronous] += seconds
    hidden = min(wait[True] * _HIDDEN[case], compute)
    return wait[True] - hidden + wait[False]


def _kernel_flops(config: Config, axis_sizes: Mapping[str, int], step: CompiledStep) -> float:
    """FLOPs of the attention kernels on a device: causal, two products forward, five backward."""
    model, tensor = config.model, axis_sizes["tensor"]
    rows = rows_per_device(config.train, axis_sizes)
    product = rows * model.context_length**2 * model.d_model / tensor  # 2 TTD / 2
    return sum(times * product * (2 if "fwd" in op_name else 5) for op_name, times in step.kernels)
