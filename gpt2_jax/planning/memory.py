"""What a device's memory has to hold: the state to the byte, activations from a fit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from gpt2_jax.config import Config
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.state import TrainState, abstract_state, bytes_per_device

# Bytes of activations that the backward pass needs per token, layer and unit of width; fitted to
# programs compiled for v5e and v5p, 124M and 1.5B, with splash attention.
_ACTIVATION_BYTES = {"none": 92.0, "dots": 21.0, "full": 5.0}


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a step needs of one device's memory, in bytes.

    Attributes:
      by_kind: parameters, optimizer, gradients, and activations with all else that lives only
        within a step. Of a step that the compiler refuses, activations are not known.
      needed: the most that is in use at one time.
      available: what a program may take.
      fits: in the compiler's word, where there is one.
    """

    by_kind: dict[str, int]
    needed: int
    available: int
    fits: bool


def state_bytes(abstract: TrainState) -> dict[str, int]:
    """Bytes a device holds of the state, and of gradients while they are made."""
    parameters = bytes_per_device(abstract.params)
    return {
        "parameters": parameters,
        "optimizer": bytes_per_device(abstract.opt_state),
        "gradients": parameters,
    }


def analytic_memory(config: Config, chip: Chip, num_devices: int) -> Memory:
    """The memory of so many devices, from shapes alone.

    Raises:
      UserError: for a mesh that does not divide the model.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    memory = dict(_state_bytes(_of_state(config), num_devices))
    if config.train.accumulation_steps > 1:
        memory["gradients"] *= 2  # of the microbatch, and their sum
    memory["activations"] = _activation_bytes(config, mesh.shape)
    needed, available = sum(memory.values()), chip.available_bytes
    return Memory(memory, needed, available, fits=needed <= available)


def _of_state(config: Config) -> Config:
    """The config without what leaves the state as it is, so that a search asks once for a mesh."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat="none"),
        train=dataclasses.replace(config.train, accumulation_steps=1),
    )


@functools.cache
def _state_bytes(config: Config, num_devices: int) -> Mapping[str, int]:
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    return state_bytes(abstract_state(config, make_optimizer(config), mesh, Rules()))


def _activation_bytes(config: Config, axis_sizes: Mapping[str, int]) -> int:
    model, tensor = config.model, axis_sizes["tensor"]
    rows = mesh_lib.rows_per_device(config.train, axis_sizes)
    tokens = rows * model.context_length
    per_layer = tokens * model.num_layers * model.d_model * _ACTIVATION_BYTES[model.remat]
    # Tensor parallelism cuts what lies between the residual stream's additions, which is most.
    vocab = model.padded_vocab_size / tensor
    logits = rows * (model.loss_chunk or model.context_length) * vocab * 8
    table = 3 * vocab * model.d_model * 4  # the embedding's gradients are whole on every device
    return int(per_layer / tensor + logits + table)
