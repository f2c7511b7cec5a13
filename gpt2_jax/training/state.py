"""The training state, which a run carries from step to step, and its initialization on the mesh."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from gpt2_jax.config import Config
from gpt2_jax.model.build import boxed_params, boxed_shapes
from gpt2_jax.model.positions import unused_axes
from gpt2_jax.model.trainable import joined, names, split, trained_names, trained_params
from gpt2_jax.parallel import rules as sharding_rules
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.guard import LossWindow, empty_window
from gpt2_jax.training.rates import check_multipliers


class TrainState(NamedTuple):
    """Holds the state of a run after `step` batches.

    Attributes:
      step: int32, batches consumed; it also advances when an update is skipped.
      params: the model's parameters, float32.
      opt_state: optax's state for the parameters that are trained (see `model/trainable.py`); its
        own count advances only with applied updates.
      bad_steps: int32, the number of latest updates in a row that were skipped as not finite.
      loss_window: the losses that spikes are detected from; None if `train.spike_threshold` is 0.
      ema: the average of the trained parameters after each update so far (see `updated_average`),
        or zeros before the first; None if `optimizer.ema_decay` is 0.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    bad_steps: jax.Array
    loss_window: LossWindow | None
    ema: Any = None


def without_params(state: TrainState) -> dict[str, Any]:
    """Returns the state without its parameters, which are stored apart to be read alone."""
    named = state._asdict().items()
    return {name: value for name, value in named if name != "params" and value is not None}


def stored_params(config: Config, params: Any) -> Any:
    """Returns what a checkpoint holds of the parameters: with LoRA the adapters alone."""
    return trained_params(config, params) if config.model.lora_rank else params


def without_stored(config: Config, params: Any) -> Any:
    """Returns what a checkpoint of adapters does not hold: the parameters of their base."""
    return split(params, trained_names(config, params))[1]


def evaluated_average(config: Config, state: TrainState) -> Any:
    """Returns the average with frozen parameters as they are, so that it can be evaluated."""
    return joined(state.ema, split(state.params, trained_names(config, state.params))[1])


def boxed_state(config: Config, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns shapes and dtypes of the state, with parameters boxed in their logical axis names.

    Raises:
      UserError: for a pattern of `optimizer.rate_multipliers` without effect on this model.
    """
    state = jax.eval_shape(
        lambda params: _new_state(config, optimizer, params), boxed_shapes(config.model)
    )
    trained = trained_names(config, state.params)
    check_multipliers(config.optimizer, sorted(trained or names(state.params)))
    return state


def abstract_state(
    config: Config,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    rules: Rules,
) -> TrainState:
    """Returns the state as ShapeDtypeStructs with shardings; nothing is computed.

    Raises:
      UserError: for a dimension that the mesh does not divide, and what `boxed_state` raises.
    """
    return shard_state(config, boxed_state(config, optimizer), mesh, rules)


def shard_state(
    config: Config, boxed: TrainState, mesh: Mesh | AbstractMesh, rules: Rules
) -> TrainState:
    """Returns what `abstract_state` does, from what `boxed_state` has returned.

    Raises:
      UserError: for a dimension that the mesh does not divide.
    """
    shardings = sharding_rules.shardings(boxed, mesh, rules, unused=unused_axes(config.model))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings,
    )


def init_state(
    config: Config, optimizer: optax.GradientTransformation, abstract: TrainState
) -> TrainState:
    """Returns a new state from its seed; each array is made sharded, never first as a whole."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    create = jax.jit(
        lambda key: nn.unbox(_new_state(config, optimizer, boxed_params(config.model, key))),
        out_shardings=shardings,
    )
    return create(jax.random.key(config.train.seeds.init))


def init_params(config: Config, abstract: Any) -> Any:
    """Returns only the parameters of a new state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    create = jax.jit(lambda key: nn.unbox(boxed_params(config.model, key)), out_shardings=shardings)
    return create(jax.random.key(config.train.seeds.init))


def bytes_per_device(abstract: Any) -> int:
    """Returns the bytes of an abstract tree with shardings that each device holds."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(abstract)
    )


def _new_state(config: Config, optimizer: optax.GradientTransformation, params: Any) -> TrainState:
    """Returns the state in which a run with these parameters begins."""
    zero = jnp.zeros((), jnp.int32)
    trained = trained_params(config, params)
    opt_state = optimizer.init(trained)
    # Zeros, because two names for the same parameters could not both be donated to the step.
    ema = optax.tree.zeros_like(trained) if config.optimizer.ema_decay else None
    return TrainState(zero, params, opt_state, zero, empty_window(config.train), ema)
