"""The forecast of a run: what it needs, what it moves, how long it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from gpt2_jax.config import Config
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.planning.aot import DoesNotFit, compile_step
from gpt2_jax.planning.estimate import Estimate, Range, from_program, from_shapes
from gpt2_jax.planning.memory import Memory, analytic_memory
from gpt2_jax.planning.topology import Topology
from gpt2_jax.planning.transfers import Transfer, on_paper

COMPILED = "compiled for the topology; times uncalibrated"
ANALYTIC = "analytic: from shapes alone, nothing was compiled; times and activations are rough"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A forecast; ranges are (best, worst).

    Attributes:
      topology: name of the slice, or chip and count.
      chip: of which its devices are.
      axis_sizes: of the mesh.
      memory: of one device.
      estimate: of a step's time; None where the compiler refuses the step.
      transfers: of a step that was compiled.
      rematerializations: in it, XLA's warnings that it moves an array the long way round.
      compile_seconds: None where nothing was compiled.
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
        """COMPILED or ANALYTIC."""
        return ANALYTIC if self.compile_seconds is None else COMPILED

    @property
    def devices(self) -> int:
        """How many take part."""
        return math.prod(self.axis_sizes.values())

    @property
    def layout(self) -> str:
        """The mesh in words."""
        return " x ".join(f"{axis} {size}" for axis, size in self.axis_sizes.items())

    @property
    def rows_per_device(self) -> int:
        """Sequences of a microbatch on one device."""
        return mesh_lib.rows_per_device(self.config.train, self.axis_sizes)

    @property
    def parameters(self) -> int:
        """Of the model, padding left out."""
        return num_params(self.config.model)

    @property
    def flops_per_step(self) -> float:
        """6N + 6LTd per token, over all devices; recomputation is not counted."""
        return flops_per_token(self.config.model) * self.config.tokens_per_step

    @property
    def traffic_ratio(self) -> float | None:
        """Bytes of gathered parameters and reduced gradients, over what the layout needs on paper.

        None where it needs none, or nothing was compiled.
        """
        paper = _weight_bytes(on_paper(self.config, self.axis_sizes))
        if self.transfers is None or not paper:
            return None
        return _weight_bytes(self.transfers) / paper

    @property
    def step_seconds(self) -> Range | None:
        """Of one step; None, as all that follows from it, where there is no estimate."""
        return self.estimate and self.estimate.step_seconds

    @property
    def exposed_seconds(self) -> Range | None:
        """Of one step, waiting for transfers."""
        return self.estimate and self.estimate.exposed_seconds

    @property
    def tokens_per_second(self) -> Range | None:
        """Over all devices."""
        return self._from_seconds(lambda seconds: self.config.tokens_per_step / seconds)

    @property
    def mfu(self) -> Range | None:
        """Share of the devices' peak that `flops_per_step` come to."""
        peak = self.chip.peak_bf16_flops
        return self._from_seconds(
            lambda seconds: self.flops_per_step / seconds / self.devices / peak
        )

    @property
    def days(self) -> Range | None:
        """Of the whole run."""
        return self._from_seconds(lambda seconds: self.config.train.total_steps * seconds / 86400)

    @property
    def chip_hours(self) -> Range | None:
        """Of the whole run, over all devices."""
        return self.days and (24 * self.devices * self.days[0], 24 * self.devices * self.days[1])

    def _from_seconds(self, figure: Callable[[float], float]) -> Range | None:
        if self.estimate is None:
            return None
        best, worst = map(figure, self.estimate.step_seconds)
        return best, worst


def compiled_plan(config: Config, topology: Topology) -> Plan:
    """The forecast of the compiled step.

    Raises:
      UserError: for a mesh that does not divide the model or the batch, or without libtpu.
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
        estimate=from_program(config, chip, axis_sizes, step),
        transfers=step.transfers,
        rematerializations=step.rematerializations,
    )


def analytic_plan(config: Config, chip: Chip, num_devices: int, name: str) -> Plan:
    """The forecast from shapes alone.

    Args:
      name: of the devices, for the plan.

    Raises:
      UserError: for a mesh that does not divide the model or the batch.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    mesh_lib.check_batch(config.train, mesh)
    axis_sizes = mesh_lib.describe(mesh)
    memory = analytic_memory(config, chip, num_devices)
    return Plan(name, config, chip, axis_sizes, memory, from_shapes(config, chip, axis_sizes))


def _weight_bytes(transfers: Iterable[Transfer]) -> float:
    return sum(one.bytes for one in transfers if one.of in ("parameters", "gradients"))
