"""Estimates how long a step takes, from a compiled program or from shapes alone.

No estimate has been checked against measured times on a TPU. So each is a range from the likely
best to the likely worst case, and this file holds the constants behind it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token
from gpt2_jax.model.splash import splash_block
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.planning.aot import CompiledStep
from gpt2_jax.planning.topology import network_bandwidth
from gpt2_jax.planning.transfers import Transfer, minimum_transfers

# Each constant is (best case, worst case).
# Factor on XLA's estimate of cycles: memory may be busier than its cost model assumes.
_CYCLES = (1.0, 1.25)
# Share of the links' bandwidth that a collective reaches.
_LINKS = (0.9, 0.5)
# Seconds that a collective takes regardless of its size.
_LATENCY = (5e-6, 20e-6)
# Share of the asynchronous transfers that overlap with the computation.
_OVERLAPPED = (1.0, 0.5)
# Share of a chip's peak that the computation reaches, if there is no program. Published GPT-2 runs
# on A100 and H100 reach 0.32 to 0.57 (docs/planning.md).
_ANALYTIC_PEAK = (0.57, 0.32)
# What remat recomputes, as a share of forward and backward pass; a forward pass is a third.
_RECOMPUTED = {"none": 0.0, "dots": 0.05, "full": 1 / 3}


# (best case, worst case).
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Holds the estimated times of one optimizer step.

    Attributes:
      compute_seconds: time that a device computes.
      exposed_seconds: time that a device waits for transfers.
      kernel_peak: share of the peak that the attention kernel is taken to reach; None if the step
        has no such kernel, or nothing was compiled.
    """

    compute_seconds: Range
    exposed_seconds: Range
    kernel_peak: Range | None = None

    @property
    def step_seconds(self) -> Range:
        """Returns the time of the whole step."""
        (best, worst), (least, most) = self.compute_seconds, self.exposed_seconds
        return best + least, worst + most


def estimate_from_program(
    config: Config, chip: Chip, axis_sizes: Mapping[str, int], step: CompiledStep
) -> Estimate:
    """Returns the estimate for a compiled step.

    Raises:
      ValueError: for a chip without a clock or a matrix unit in the table of chips.
    """
    if chip.clock_hz is None or chip.matrix_unit is None:
        raise ValueError(f"no clock or matrix unit for {chip.name}")
    seconds = [step.cycles / chip.clock_hz * factor for factor in _CYCLES]
    share = None
    if step.kernels:
        model = config.model
        block = splash_block(model.context_length)
        share = kernel_peak(model.head_dim, block, model.context_length, chip.matrix_unit)
        flops = _kernel_flops(config, axis_sizes, step)
        seconds = [
            each + flops / (chip.peak_bf16_flops * reached)
            for each, reached in zip(seconds, share, strict=True)
        ]
    best, worst = seconds
    estimate = _estimate((best, worst), step.transfers, step.links)
    return dataclasses.replace(estimate, kernel_peak=share)


def kernel_peak(head_dim: int, block: int, context_length: int, matrix_unit: int) -> Range:
    """Returns the share of a TPU's peak that a causal attention kernel reaches, best and worst.

    The FLOPs it is compared with are those of the causal half of the scores. Three things keep a
    kernel that computes block by block below the peak:

    1. In every product, heads are as wide as one side of the matrix unit, or the unit is partly
       idle: a head width of 64 uses half of a unit of 128, and a quarter of one of 256.
    2. Blocks on the diagonal are computed whole. With n = T / block, that is n (n + 1) / 2 of n^2
       blocks for half of the scores, so n / (n + 1) of the work counts: with blocks of 512 and
       T = 1024, three of four blocks are computed, and two thirds count.
    3. The softmax keeps the vector unit busy for about as long as the products do. In the best case
       the two overlap, and in the worst case they take turns, which halves the share.

    GPT-2 on a unit of 128 can so reach 1/2 x 2/3 = 0.33 at best and 0.17 at worst. Nothing of this
    has been measured.

    Args:
      head_dim: the width of a head.
      block: rows and columns of a block of scores; see `splash.splash_block`.
      context_length: T, a multiple of the block.
      matrix_unit: rows and columns of the matrix unit; see `Chip`.
    """
    filled = head_dim / (matrix_unit * math.ceil(head_dim / matrix_unit))
    blocks = context_length // block
    best = filled * blocks / (blocks + 1)
    return best, best / 2


def estimate_from_shapes(
    config: Config, chip: Chip, axis_sizes: Mapping[str, int], num_slices: int = 1
) -> Estimate:
    """Returns an estimate from the FLOPs and the least that the layout has to transfer."""
    flops = flops_per_token(config.model) * config.tokens_per_step / math.prod(axis_sizes.values())
    flops *= 1 + _RECOMPUTED[config.compute.remat]
    best, worst = (flops / (chip.peak_bf16_flops * share) for share in _ANALYTIC_PEAK)
    links = dict.fromkeys(axis_sizes, chip.link_bandwidth)
    if num_slices > 1:
        links["data"] = network_bandwidth(chip, axis_sizes["data"], num_slices)
    return _estimate((best, worst), minimum_transfers(config, axis_sizes), links)


def _estimate(
    compute: Range, transfers: Sequence[Transfer], links: Mapping[str, float]
) -> Estimate:
    best, worst = (_exposed_seconds(case, compute[case], transfers, links) for case in (0, 1))
    return Estimate(compute, (best, worst))


def _exposed_seconds(
    case: int, compute: float, transfers: Sequence[Transfer], links: Mapping[str, float]
) -> float:
    """Returns the seconds of transfers that do not overlap, in the best (0) or worst case (1)."""
    wait = {True: 0.0, False: 0.0}
    for transfer in transfers:
        bandwidth = sum(links[axis] for axis in transfer.axes) * _LINKS[case]
        seconds = transfer.sent_bytes / bandwidth + _LATENCY[case] * transfer.count
        wait[transfer.asynchronous] += seconds
    overlapped = min(wait[True] * _OVERLAPPED[case], compute)
    return wait[True] - overlapped + wait[False]


def _kernel_flops(config: Config, axis_sizes: Mapping[str, int], step: CompiledStep) -> float:
    """Returns the FLOPs of causal attention kernels on a device: 2 products forward, 5 backward."""
    model, tensor = config.model, axis_sizes["tensor"]
    rows = rows_per_device(config.train, axis_sizes)
    product = rows * model.context_length**2 * model.d_model / tensor  # 2 TTD / 2
    return sum(times * product * (2 if "fwd" in op_name else 5) for op_name, times in step.kernels)
