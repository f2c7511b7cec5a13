"""What a run carries from step to step, and how it comes to be on the mesh."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from gpt2_jax.config import Config
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.parallel import rules as sharding_rules
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.train.guard import LossWindow, empty_window


class TrainState(NamedTuple):
    """The state of a run after `step` batches.

    Attributes:
      step: int32, batches consumed; it also advances when an update is skipped.
      params: the model's parameters, float32.
      opt_state: optax's state; its own count advances only with applied updates.
      bad_steps: int32, updates in a row, up to now, skipped because they were not finite.
      loss_window: what spikes are told by; None where `train.spike_threshold` is 0.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    bad_steps: jax.Array
    loss_window: LossWindow | None


def without_params(state: TrainState) -> dict[str, Any]:
    """What there is but the parameters, which are stored apart so that they can be read alone."""
    named = state._asdict().items()
    return {name: value for name, value in named if name != "params" and value is not None}


def boxed_state(config: Config, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and dtypes of the state, its parameters with their logical names about them."""
    return jax.eval_shape(_initializer(config, optimizer), jax.random.key(0))


def abstract_state(
    config: Config,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    rules: Rules,
) -> TrainState:
    """Shapes, dtypes and shardings of the state: ShapeDtypeStructs, nothing is computed.

    Raises:
      UserError: for a dimension that the mesh does not divide.
    """
    boxed = boxed_state(config, optimizer)
    shardings = sharding_rules.shardings(boxed, mesh, rules)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings,
    )


def init_state(
    config: Config, optimizer: optax.GradientTransformation, abstract: TrainState
) -> TrainState:
    """A fresh state from `train.seed`, made in place on the mesh: no array is whole first."""
    init = _initializer(config, optimizer)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    create = jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)
    return create(jax.random.key(config.train.seed))


def init_params(config: Config, abstract: Any) -> Any:
    """The parameters of a fresh state, alone."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    create = jax.jit(lambda key: nn.unbox(_params(config, key)), out_shardings=shardings)
    return create(jax.random.key(config.train.seed))


def bytes_per_device(abstract: Any) -> int:
    """Bytes the fullest device holds of an abstract tree with shardings."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(abstract)
    )


def _initializer(config: Config, optimizer: optax.GradientTransformation) -> Any:
    def init(key: jax.Array) -> TrainState:
        params = _params(config, key)
        zero = jnp.zeros((), jnp.int32)
        opt_state = optimizer.init(params)
        return TrainState(zero, params, opt_state, zero, empty_window(config.train))

    return init


def _params(config: Config, key: jax.Array) -> Any:
    tokens = jnp.zeros((1, config.model.context_length), jnp.int32)
    return GPT2(config.model).init(key, tokens)["params"]
