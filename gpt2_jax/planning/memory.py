"""Estimates the memory of a device: the state to the byte, activations from a fit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from gpt2_jax.config import Config
from gpt2_jax.model.defaults import loss_positions
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import TrainState, abstract_state, bytes_per_device

# Bytes of activations that the backward pass needs per token, layer and unit of width. In bfloat16,
# without remat: the inputs of both norms and their results (8), queries, keys and values and the
# output of attention (8), and the input and the result of the activation (16). Compiled programs of
# 124M and 1.5B parameters for v5e need up to a third less in all.
_ACTIVATION_BYTES = {"none": 32.0, "dots": 23.0, "full": 5.0}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Holds the memory that a step needs on one device, in bytes.

    Attributes:
      by_kind: bytes of parameters, optimizer, gradients and activations, which include everything
        else that lives only within a step. If the step does not fit, activations are unknown.
      needed: the most that is in use at one time.
      available: what a program may use.
      fits: whether the step fits; the compiler decides, if there is a compiled step.
    """

    by_kind: dict[str, int]
    needed: int
    available: int
    fits: bool


def state_bytes(abstract: TrainState) -> dict[str, int]:
    """Returns the bytes that a device holds of the state, and of gradients during a step."""
    parameters = bytes_per_device(abstract.params)
    return {
        "parameters": parameters,
        "optimizer": bytes_per_device(abstract.opt_state),
        "gradients": parameters,
    }


def analytic_memory(config: Config, chip: Chip, num_devices: int) -> Memory:
    """Returns the memory of each of so many devices, from shapes alone.

    Raises:
      UserError: if the mesh does not divide the model.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    memory = dict(_state_bytes(_without_step_knobs(config), num_devices))
    if config.train.accumulation_steps > 1:
        memory["gradients"] *= 2  # those of the microbatch, and their sum
    memory["activations"] = _activation_bytes(config, chip, mesh.shape)
    if config.data.isolate_documents and not chip.is_tpu:
        memory["activations"] += _mask_bytes(config, mesh.shape)
    needed, available = sum(memory.values()), chip.available_bytes
    return Memory(memory, needed, available, fits=needed <= available)


def _without_step_knobs(config: Config) -> Config:
    """Returns the config with knobs that do not affect the state reset, as a key of the cache."""
    return dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, remat="none"),
        train=dataclasses.replace(config.train, accumulation_steps=1),
    )


@functools.cache
def _state_bytes(config: Config, num_devices: int) -> Mapping[str, int]:
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    return state_bytes(abstract_state(config, make_optimizer(config), mesh, Rules()))


def _mask_bytes(config: Config, axis_sizes: Mapping[str, int]) -> int:
    """Returns the bytes of the mask [B, 1, T, T] of documents, which cuDNN's attention needs.

    It is made of booleans, and JAX gives it to cuDNN as a bias in bfloat16, whose gradient cuDNN
    writes although nothing reads it. Splash on TPUs compares documents block by block, and needs
    none.
    """
    rows = mesh_lib.rows_per_device(config.train, axis_sizes)
    return rows * config.model.context_length**2 * (1 + 2 + 2)


def _activation_bytes(config: Config, chip: Chip, axis_sizes: Mapping[str, int]) -> int:
    model, tensor = config.model, axis_sizes["tensor"]
    rows = mesh_lib.rows_per_device(config.train, axis_sizes)
    tokens = rows * model.context_length
    per_layer = tokens * model.num_layers * model.d_model * _ACTIVATION_BYTES[config.compute.remat]
    # Tensor parallelism shards what lies between the additions to the residual stream: most of it.
    vocab = model.padded_vocab_size / tensor
    platform = "tpu" if chip.is_tpu else "gpu"
    chunk = loss_positions(config.compute.loss_chunk, rows, model.context_length, platform)
    logits = rows * (chunk or model.context_length) * vocab * 8
    table = 3 * vocab * model.d_model * 4  # every device has whole gradients of the embedding
    return int(per_layer / tensor + logits + table)
