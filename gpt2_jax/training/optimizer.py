"""Optimizers and learning rate schedules: update rules, clipping, weight decay by name.

To add an optimizer, add its update rule to `RULES`, and its name to `OPTIMIZERS` of the config's
sections. To add a schedule, do the same with `DECAYS` and `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gpt2_jax.config import Config, OptimizerConfig, ScheduleConfig

# Matrices and embeddings decay; biases and the scales of norms never do. Names decide, because
# stacked layers add an axis to every shape.
_DECAYED = frozenset({"kernel", "wte", "wpe", "lm_head"})


class Decay(NamedTuple):
    """Holds where a schedule stands after its warmup.

    Attributes:
      progress: float32, from 0 at the end of the warmup to 1 at the last step.
      n: float32, the number of updates before this one, warmup included.
      warmup: the number of warmup updates.
    """

    progress: jax.Array
    n: jax.Array
    warmup: int


DECAYS: dict[str, Callable[[Decay], jax.Array]] = {
    "cosine": lambda at: 0.5 * (1 + jnp.cos(jnp.pi * at.progress)),
    "linear": lambda at: 1 - at.progress,
    "constant": lambda at: jnp.ones_like(at.progress),
}
"""Schedule -> a function that returns what is left of the way from the peak down to the minimum."""

RULES: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    # Loshchilov and Hutter 2019.
    "adamw": lambda config: optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
    # Chen et al. 2023.
    "lion": lambda config: optax.scale_by_lion(config.beta1, config.beta2),
}
"""Optimizer -> its update rule, to which weight decay and the learning rate are added."""


def make_schedule(config: ScheduleConfig, total_steps: int) -> optax.Schedule:
    """Returns the learning rate of the n-th update, n counted from 0.

    With W warmup steps and peak p: p (n + 1) / (W + 1) while n < W, so that the first update is not
    zero; then from p at n = W to the minimum at n = total_steps, where it stays (nanoGPT's curve).
    """
    peak, end, warmup = config.learning_rate, config.min_learning_rate, config.warmup_steps
    decay = DECAYS[config.name]

    def learning_rate(count: Any) -> jax.Array:
        n = jnp.asarray(count, jnp.float32)
        progress = jnp.clip((n - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        decayed = end + (peak - end) * decay(Decay(progress, n, warmup))
        return jnp.where(n < warmup, peak * (n + 1) / (warmup + 1), decayed)

    return learning_rate


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the config's optimizer: clip by global norm, update rule, decay, learning rate."""
    optimizer = config.optimizer
    clip = optimizer.grad_clip
    schedule = make_schedule(config.schedule, config.train.total_steps)
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.chain(
            RULES[optimizer.name](optimizer),
            optax.add_decayed_weights(optimizer.weight_decay, decay_mask),
            optax.scale_by_learning_rate(schedule),
        ),
    )


def decay_mask(params: Any) -> Any:
    """Returns a tree of booleans like `params`: true where weight decay applies."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return any(getattr(entry, "key", None) in _DECAYED for entry in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def updates_made(opt_state: Any) -> jax.Array:
    """Returns how many updates the optimizer has applied, which is where the schedule stands."""
    return optax.tree.get(opt_state, "ScaleByScheduleState").count
