"""Estimates the memory of a device: the state to the byte, activations from a fit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from gpt2_jax.config import Config, MeshConfig, ModelConfig
from gpt2_jax.model.attention_kernels import choose_on
from gpt2_jax.model.defaults import loss_positions
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.model.trainable import trained_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.chips import Chip
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.prepare.example_files import uses_examples
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import TrainState, boxed_state, bytes_per_device, shard_state

# Bytes of activations that the backward pass needs per token, layer and unit of width. In bfloat16,
# without remat: the inputs of both norms and their results (8), queries, keys and values and the
# output of attention (8), and the input and the result of the activation (16). Compiled programs of
# 124M and 1.5B parameters for v5e need up to a third less in all.
_ACTIVATION_BYTES = {"none": 32.0, "dots": 23.0, "full": 5.0}
# How many arrays [T, F] of a layer are among them: the input and the result of the activation, the
# latter without remat only. A gated MLP has one more.
_MLP_ARRAYS = {"none": 2, "dots": 1, "full": 0}
# Bytes per score of the one layer that is at work, fitted to programs of 124M parameters with the
# reference kernel compiled for H100, which need 9 to 13.
_SCORE_BYTES_AT_WORK = 11
# One more array of float32 for each further product of pairs; programs for CPUs need 3 bytes.
_PRODUCT_BYTES_AT_WORK = 4


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


def state_bytes(config: Config, abstract: TrainState) -> dict[str, int]:
    """Returns the bytes that a device holds of the state, and of gradients during a step.

    Only the parameters that are trained have gradients and optimizer state.
    """
    return {
        "parameters": bytes_per_device(abstract.params),
        "optimizer": bytes_per_device((abstract.opt_state, abstract.ema)),
        "gradients": bytes_per_device(trained_params(config, abstract.params)),
    }


def analytic_memory(config: Config, chip: Chip, num_devices: int) -> Memory:
    """Returns the memory of each of so many devices, from shapes alone.

    Raises:
      UserError: if the mesh does not divide the model.
    """
    mesh = mesh_lib.abstract_mesh(config.mesh, num_devices)
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]  # replicas hold the same
    memory = dict(_state_bytes(_without_step_knobs(config), fsdp, tensor))
    if config.train.accumulation_steps > 1:
        memory["gradients"] *= 2  # those of the microbatch, and their sum
    memory["activations"] = _activation_bytes(config, chip, mesh.shape)
    kernel = choose_on(config.model, config.compute, chip.compute_capability)
    if kernel == "reference":
        memory["activations"] += _score_bytes(config, mesh.shape)
    elif kernel == "cudnn" and (config.data.isolate_documents or uses_examples(config)):
        memory["activations"] += _mask_bytes(config, mesh.shape)
    needed, available = sum(memory.values()), chip.available_bytes
    return Memory(memory, needed, available, fits=needed <= available)


def boxed_state_of(config: Config) -> TrainState:
    """Returns `boxed_state` of a config, traced once for all its meshes and ways to run a step."""
    return _boxed_state(_without_step_knobs(config))


def _without_step_knobs(config: Config) -> Config:
    """Returns the config with knobs that do not affect the state reset, as a key of the caches."""
    return dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, remat="none"),
        train=dataclasses.replace(config.train, batch_size=1, accumulation_steps=1),
        mesh=MeshConfig(),
    )


@functools.cache
def _boxed_state(config: Config) -> TrainState:
    return boxed_state(config, make_optimizer(config))


@functools.cache
def _state_bytes(config: Config, fsdp: int, tensor: int) -> Mapping[str, int]:
    mesh = mesh_lib.abstract_mesh(MeshConfig(1, fsdp, tensor), fsdp * tensor)
    return state_bytes(config, shard_state(config, _boxed_state(config), mesh, Rules()))


def _score_bytes(config: Config, axis_sizes: Mapping[str, int]) -> int:
    """Returns the bytes of the scores [B, H, T, T], which the reference kernel stores.

    Without remat, each layer keeps for the backward pass the probabilities in float32, those after
    dropout in the compute dtype, and with dropout its mask, a byte a score. Beside that, and with
    remat alone, one layer at a time is at work.
    """
    model, compute = config.model, config.compute
    rows = mesh_lib.rows_per_device(config.train, axis_sizes)
    scores = rows * model.num_heads * model.context_length**2 / axis_sizes["tensor"]
    kept = 4 + (2 if compute.dtype == "bfloat16" else 4) + (1 if model.dropout else 0)
    layers = model.num_layers if compute.remat == "none" else 0
    at_work = _SCORE_BYTES_AT_WORK
    at_work += _PRODUCT_BYTES_AT_WORK * ENCODINGS[model.position].score_products
    return int(scores * (layers * kept + at_work))


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
    remat, D = config.compute.remat, model.d_model
    per_token = D * _ACTIVATION_BYTES[remat] + _bytes_beyond_gpt2(model, remat)
    per_layer = tokens * model.num_layers * per_token
    # Tensor parallelism shards what lies between the additions to the residual stream: most of it.
    vocab = model.padded_vocab_size / tensor
    platform = "tpu" if chip.is_tpu else "gpu"
    chunk = loss_positions(config.compute.loss_chunk, rows, model.context_length, platform)
    logits = rows * (chunk or model.context_length) * vocab * 8
    table = 3 * vocab * D * 4  # every device has whole gradients of the embedding
    return int(per_layer / tensor + logits + table)


def _bytes_beyond_gpt2(model: ModelConfig, remat: str) -> int:
    """Returns the bytes of activations per token and layer that GPT-2's layer of D does not have.

    It is negative for an MLP that is narrower than GPT-2's.
    """
    arrays = _MLP_ARRAYS[remat]
    gated = arrays + 1 if model.is_gated and arrays else arrays
    keeps_all = remat == "none"
    # Scans keep what they carry, so the first layer's values, whatever remat says.
    mixed = model.x0_residual * keeps_all + model.value_residual * (1 + keeps_all)
    normalized = 2 * model.d_model if model.qk_norm != "none" and keeps_all else 0
    beside = normalized + mixed * model.d_model
    return 2 * (gated * model.mlp_width - arrays * 4 * model.d_model + beside)
