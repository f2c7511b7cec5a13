"""Plans a run: what it needs, what it transfers, and how long it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.model.trainable import num_trained_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.planning.aot import DoesNotFit, compile_step
from gpt2_jax.planning.estimate import Estimate, Range, estimate_from_program, estimate_from_shapes
from gpt2_jax.planning.memory import Memory, analytic_memory
from gpt2_jax.planning.topology import Topology
from gpt2_jax.planning.transfers import Transfer, minimum_transfers

COMPILED = "compiled for the topology; times uncalibrated"
ANALYTIC = "analytic: from shapes alone, nothing was compiled; times and activations are rough"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds the figures of a planned run; ranges are (best case, worst case).

    Attributes:
      topology: name of the slice, or the number of chips and their name.
      config: config of the run.
      chip: figures of one device.
      axis_sizes: sizes of the mesh axes.
      memory: memory of one device.
      estimate: times of a step; None if the compiler says that the step does not fit.
      transfers: transfers of a compiled step; None if nothing was compiled.
      rematerializations: see `CompiledStep`.
      compile_seconds: time of the compilation; None if nothing was compiled.
    """

    topology: str
    config: Config
    chip: Chip
    axis_sizes: dict[str, int]
    memory: Memory
    estimate: Estimate | None = None
    transfers: tuple[Transfer, ...] | None = None
    rematerializations: int | None = None
    compile_seconds: float | None = None

    @property
    def method(self) -> str:
        """Returns COMPILED or ANALYTIC."""
        return ANALYTIC if self.compile_seconds is None else COMPILED

    @property
    def devices(self) -> int:
        """Returns the number of devices."""
        return math.prod(self.axis_sizes.values())

    @property
    def layout(self) -> str:
        """Returns a description of the mesh."""
        return mesh_lib.axes_text(self.axis_sizes)

    @property
    def rows_per_device(self) -> int:
        """Returns the sequences of a microbatch on one device."""
        return mesh_lib.rows_per_device(self.config.train, self.axis_sizes)

    @property
    def parameters(self) -> int:
        """Returns the parameters of the model, without padding."""
        return num_params(self.config.model)

    @property
    def trained_parameters(self) -> int:
        """Returns how many of them are trained: fewer if some are frozen."""
        return num_trained_params(self.config)

    @property
    def flops_per_step(self) -> float:
        """Returns the FLOPs of a step over all devices: 6N + 6LTd per token, without remat."""
        return flops_per_token(self.config.model) * self.config.tokens_per_step

    @property
    def traffic_ratio(self) -> float | None:
        """Returns the bytes of parameters and gradients that move, divided by the layout's minimum.

        Returns None if the layout needs no transfers, or nothing was compiled.
        """
        minimum = _weight_bytes(minimum_transfers(self.config, self.axis_sizes))
        if self.transfers is None or not minimum:
            return None
        return _weight_bytes(self.transfers) / minimum

    @property
    def step_seconds(self) -> Range | None:
        """Returns the time of a step; without an estimate, None, like all figures that follow."""
        return self.estimate and self.estimate.step_seconds

    @property
    def exposed_seconds(self) -> Range | None:
        """Returns the time of a step that is spent waiting for transfers."""
        return self.estimate and self.estimate.exposed_seconds

    @property
    def tokens_per_second(self) -> Range | None:
        """Returns the tokens per second over all devices."""
        return self._from_seconds(lambda seconds: self.config.tokens_per_step / seconds)

    @property
    def mfu(self) -> Range | None:
        """Returns the share of the devices' peak FLOP/s that `flops_per_step` amount to."""
        peak = self.chip.peak_bf16_flops
        return self._from_seconds(
            lambda seconds: self.flops_per_step / seconds / self.devices / peak
        )

    @property
    def days(self) -> Range | None:
        """Returns the days of the whole run."""
        return self._from_seconds(lambda seconds: self.config.train.total_steps * seconds / 86400)

    @property
    def chip_hours(self) -> Range | None:
        """Returns the chip-hours of the whole run, over all devices."""
        return self.days and (24 * self.devices * self.days[0], 24 * self.devices * self.days[1])

    def _from_seconds(self, figure: Callable[[float], float]) -> Range | None:
        if self.estimate is None:
            return None
        best, worst = map(figure, self.estimate.step_seconds)
        return best, worst


def compiled_plan(config: Config, topology: Topology) -> Plan:
    """Returns the plan of a compiled step.

    Raises:
      UserError: if the mesh does not divide the model or the batch, or libtpu is not installed.
    """
    step = compile_step(config, topology)
    mesh = mesh_lib.abstract_mesh(config.mesh, topology.num_devices)
    chip, axis_sizes = topology.chip, mesh_lib.describe(mesh)
    plan = Plan(
        topology.name,
        config,
        chip,
        axis_sizes,
        step.memory,
        compile_seconds=round(step.compile_seconds, 1),
    )
    if isinstance(step, DoesNotFit):
        return plan
    return dataclasses.replace(
        plan,
        estimate=estimate_from_program(config, chip, axis_sizes, step),
        transfers=step.transfers,
        rematerializations=step.rematerializations,
    )


def analytic_plan(
    config: Config, chip: Chip, num_devices: int, name: str, num_slices: int = 1
) -> Plan:
    """Returns the plan from shapes alone.

    Args:
      config: config of the run; its `model.vocab_size` must be set.
      chip: figures of one device.
      num_devices: number of devices.
      name: name of the devices, for the plan.
      num_slices: number of TPU slices that the devices are on.

    Raises:
      UserError: if the mesh does not divide the model or the batch, or does not fit the slices.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    mesh_lib.check_slices(mesh.axis_sizes, num_slices)
    mesh_lib.check_batch(config.train, mesh)
    axis_sizes = mesh_lib.describe(mesh)
    memory = analytic_memory(config, chip, num_devices)
    estimate = estimate_from_shapes(config, chip, axis_sizes, num_slices)
    return Plan(name, config, chip, axis_sizes, memory, estimate)


def _weight_bytes(transfers: Iterable[Transfer]) -> float:
    return sum(t.bytes for t in transfers if t.of in ("parameters", "gradients"))
