"""How long a step takes: from a compiled program, or from the shapes alone.

None of this has been checked against a clock on a TPU. So every estimate is a range, from what is
likely at best to what is likely at worst, and the constants that make it so stand here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.mesh import rows_per_device
from gpt2_jax.planning.aot import CompiledStep
from gpt2_jax.planning.transfers import Transfer

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


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A range, best first.

    Attributes:
      step_seconds: of one optimizer step.
      compute_seconds: of what a device computes in it.
      exposed_seconds: that it waits for transfers.
    """

    step_seconds: tuple[float, float]
    compute_seconds: tuple[float, float]
    exposed_seconds: tuple[float, float]


def from_program(config: Config, chip: Chip, step: CompiledStep) -> Estimate:
    """The estimate for a compiled step.

    Raises:
      ValueError: for a chip whose clock the table lacks.
    """
    if chip.clock_hz is None:
        raise ValueError(f"no clock for {chip.name}")
    kernel_flops = _kernel_flops(config, step)
    compute, exposed = [], []
    for i in (0, 1):
        kernels = kernel_flops / (chip.peak_bf16_flops * _KERNEL_PEAK[i])
        compute.append(step.cycles / chip.clock_hz * _CYCLES[i] + kernels)
        wait = {True: 0.0, False: 0.0}
        for transfer in step.transfers:
            seconds = _seconds(transfer, step.links, _LINKS[i], _LATENCY[i])
            wait[transfer.asynchronous] += seconds
        hidden = min(wait[True] * _HIDDEN[i], compute[i])
        exposed.append(wait[True] - hidden + wait[False])
    total = tuple(a + b for a, b in zip(compute, exposed, strict=True))
    return Estimate(_pair(total), _pair(compute), _pair(exposed))


def from_shapes(config: Config, chip: Chip, axis_sizes: Mapping[str, int]) -> Estimate:
    """The estimate without a program: FLOPs, and the least that the layout has to move."""
    devices = axis_sizes["data"] * axis_sizes["fsdp"] * axis_sizes["tensor"]
    flops = flops_per_token(config.model) * config.tokens_per_step / devices
    flops *= 1 + _RECOMPUTED[config.model.remat]
    moved = least_traffic(config, axis_sizes)
    compute, exposed = [], []
    for i in (0, 1):
        compute.append(flops / (chip.peak_bf16_flops * _ANALYTIC_PEAK[i]))
        wait = sum(moved.values()) / (chip.link_bandwidth * _LINKS[i])
        exposed.append(wait - min(wait * _HIDDEN[i], compute[i]))
    total = [a + b for a, b in zip(compute, exposed, strict=True)]
    return Estimate(_pair(total), _pair(compute), _pair(exposed))


def least_traffic(config: Config, axis_sizes: Mapping[str, int]) -> dict[str, float]:
    """Bytes a device has to send in a step, by what they are, for this layout.

    FSDP gathers each parameter twice in a microbatch, for the forward and for the backward pass,
    and reduces its gradient; replicas reduce it once more; tensor parallelism reduces activations
    four times a layer. A ring sends (g - 1) / g of an array of g devices, twice that to reduce all.
    """
    data, fsdp, tensor = (axis_sizes[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if config.model.dtype == "bfloat16" else 4
    micro = config.train.accumulation_steps
    model = num_params(config.model, padded=True) / tensor * width
    tokens = config.tokens_per_step / (data * fsdp)
    ring = {n: (n - 1) / n for n in (data, fsdp, tensor)}
    return {
        "parameters": 2 * micro * model * ring[fsdp],
        "gradients": micro * (model * ring[fsdp] + 2 * model / fsdp * ring[data]),
        "activations": 4
        * config.model.num_layers
        * tokens
        * config.model.d_model
        * width
        * 2
        * ring[tensor],
    }


def _kernel_flops(config: Config, step: CompiledStep) -> float:
    """FLOPs of the attention kernels on a device: causal, two products forward, five backward."""
    model, tensor = config.model, step.axis_sizes["tensor"]
    rows = rows_per_device(config.train, step.axis_sizes)
    product = rows * model.context_length**2 * model.d_model / tensor  # 2 TTD / 2
    return sum(times * product * (2 if "fwd" in op_name else 5) for op_name, times in step.kernels)


def _seconds(
    transfer: Transfer, links: Mapping[str, float], efficiency: float, latency: float
) -> float:
    bandwidth = sum(links[axis] for axis in transfer.axes)
    return transfer.sent_bytes / (bandwidth * efficiency) + latency * transfer.count


def _pair(values: list[float] | tuple[float, ...]) -> tuple[float, float]:
    best, worst = values
    return best, worst
