"""Applies an optimizer's update to parameters and state, unless the guard rejects it.

Optax defines every optimizer. Its chain goes over all parameters once for each of its links, and
once more to discard what the guard rejects, which on a CPU takes as long as several layers. So
AdamW is applied in one pass, in which clip, bias corrections, learning rate and guard are scalars.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gpt2_jax.config import Config, OptimizerConfig
from gpt2_jax.model.mup import scaled
from gpt2_jax.training.mup import matrix_rate, rate_factors
from gpt2_jax.training.optimizer import decay_mask
from gpt2_jax.training.rates import rate_multipliers


class Gradient(NamedTuple):
    """Holds the gradient of a step, and what is to be done with it.

    Attributes:
      total: sums over all targets of the batch, a tree like the parameters.
      weight: float32, what to divide them by.
      norm: float32, the global norm after the division.
      accepted: bool; if False, parameters and state stay as they are, to the bit.
    """

    total: Any
    weight: jax.Array
    norm: jax.Array
    accepted: jax.Array


def apply_update(
    config: Config,
    optimizer: optax.GradientTransformationExtraArgs,
    params: Any,
    opt_state: Any,
    gradient: Gradient,
    rate: jax.Array,
) -> tuple[Any, Any]:
    """Returns (params, opt_state) after an update.

    Args:
      config: of the run; `compute.plain` chooses `optax_update` for AdamW, too.
      optimizer: what `make_optimizer` returns for the config.
      params: float32.
      opt_state: the optimizer's state.
      gradient: see `Gradient`.
      rate: the learning rate, a float32 scalar.
    """
    if config.optimizer.name == "adamw" and not config.compute.plain:
        return adamw_update(
            config.optimizer, params, opt_state, gradient, rate, matrix_rate(config)
        )
    return optax_update(optimizer, params, opt_state, gradient, rate)


def optax_update(
    optimizer: optax.GradientTransformationExtraArgs,
    params: Any,
    opt_state: Any,
    gradient: Gradient,
    rate: jax.Array,
) -> tuple[Any, Any]:
    """Returns (params, opt_state) after the update of any optimizer, by Optax alone."""
    grads = jax.tree.map(lambda leaf: leaf / gradient.weight, gradient.total)
    updates, new_state = optimizer.update(grads, opt_state, params, learning_rate=rate)
    return jax.tree.map(
        lambda new, old: jnp.where(gradient.accepted, new, old),
        (optax.apply_updates(params, updates), new_state),
        (params, opt_state),
    )


def adamw_update(
    config: OptimizerConfig,
    params: Any,
    opt_state: Any,
    gradient: Gradient,
    rate: jax.Array,
    of_matrices: float = 1.0,
) -> tuple[Any, Any]:
    """Returns the same as `optax_update` for AdamW apart from rounding, in one pass.

    The factor of the learning rate of matrices is an argument, `mup.matrix_rate` of the config.
    """
    beta1, beta2, clip, accepted = config.beta1, config.beta2, config.grad_clip, gradient.accepted
    scale = 1 / gradient.weight
    if clip:
        scale *= jnp.where(gradient.norm < clip, 1.0, clip / gradient.norm)
    adam = optax.tree.get(opt_state, "ScaleByAdamState")
    count = (adam.count + 1).astype(jnp.float32)
    # A rejected gradient is multiplied by zero, and the moments by one.
    old1, old2 = (jnp.where(accepted, beta, 1.0) for beta in (beta1, beta2))
    new1 = jnp.where(accepted, (1 - beta1) * scale, 0.0)
    new2 = jnp.where(accepted, (1 - beta2) * jnp.square(scale), 0.0)
    step = jnp.where(accepted, rate, 0.0)
    pace = step / (1 - beta1**count)
    root = jax.lax.rsqrt(1 - beta2**count)
    # Zero times a gradient that is not finite would not be zero.
    grads = jax.tree.map(lambda g: jnp.where(accepted, g, 0.0), gradient.total)
    mu = jax.tree.map(lambda m, g: old1 * m + new1 * g, adam.mu, grads)
    nu = jax.tree.map(lambda v, g: old2 * v + new2 * jnp.square(g), adam.nu, grads)

    def moved(
        p: jax.Array, m: jax.Array, v: jax.Array, decays: bool, of_mup: float, multiplier: float
    ) -> jax.Array:
        factor = of_mup * multiplier
        of_decay = multiplier if config.mup_independent_decay else factor
        kept = p * (1 - scaled(step, of_decay) * config.weight_decay) if decays else p
        return kept - scaled(pace, factor) * m / (jnp.sqrt(v) * root + config.epsilon)

    counted = jax.tree.map(
        lambda leaf: leaf + accepted.astype(leaf.dtype) if leaf.ndim == 0 else leaf, opt_state
    )
    factors = rate_factors(params, of_matrices), rate_multipliers(config, params)
    new_params = jax.tree.map(moved, params, mu, nu, decay_mask(params), *factors)
    return new_params, optax.tree.set(counted, mu=mu, nu=nu)


def updated_average(
    decay: float, average: Any, params: Any, updates: jax.Array, accepted: jax.Array
) -> Any:
    """Returns the bias-corrected exponential average of the parameters after an update.

    After t updates it is sum_i d^(t-i) p_i / sum_i d^(t-i), i from 1 to t. It is kept in this form,
    so that whoever reads it needs neither d nor t: it moves towards p_t by (1 - d) / (1 - d^t).

    Args:
      decay: d, above 0 and below 1.
      average: after t - 1 updates; anything finite if t is 1.
      params: p_t.
      updates: t.
      accepted: whether there was an update; otherwise the average stays as it is, to the bit.
    """
    # Taking d^t from 1 in float32 would leave few digits while t is small.
    pace = (1 - decay) / -jnp.expm1(updates.astype(jnp.float32) * math.log(decay))
    return jax.tree.map(
        lambda old, new: jnp.where(accepted, old + pace * (new - old), old), average, params
    )
