"""Optimizers and learning rate schedules: update rules, clipping, weight decay by name.

To add an optimizer, add its update rule to `RULES`, and its name to `OPTIMIZERS` of the config's
sections. To add a schedule, do the same with `DECAYS` and `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt2_jax.config import Config, OptimizerConfig, ScheduleConfig
from gpt2_jax.model.lora import LORA_A, LORA_B
from gpt2_jax.training.adafactor import adafactor_rule
from gpt2_jax.training.muon import muon_rule
from gpt2_jax.training.mup import matrix_rate, scale_matrices
from gpt2_jax.training.rates import scale_by_multipliers

# Matrices and embeddings decay; biases and the scales of norms never do. Names decide, because
# stacked layers add an axis to every shape.
_DECAYED = frozenset({"kernel", "wte", "wpe", "relative", "lm_head", LORA_A, LORA_B})


class Decay(NamedTuple):
    """Holds where a schedule stands after its warmup.

    Attributes:
      progress: float32, from 0 where the decay begins to 1 at the last step.
      n: float32, the number of updates before this one, warmup included.
      warmup: the number of warmup updates, float32.
      shape: `schedule.decay_shape`.
    """

    progress: jax.Array
    n: jax.Array
    warmup: Any
    shape: str


DECAYS: dict[str, Callable[[Decay], jax.Array]] = {
    "cosine": lambda at: 0.5 * (1 + jnp.cos(jnp.pi * at.progress)),
    "linear": lambda at: 1 - at.progress,
    "constant": lambda at: jnp.ones_like(at.progress),
    # Hu et al. 2024; Haegele et al. 2024 found the root better.
    "wsd": lambda at: 1 - (jnp.sqrt(at.progress) if at.shape == "sqrt" else at.progress),
}
"""Schedule -> a function that returns what is left of the way from the peak down to the minimum."""

RULES: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    # Loshchilov and Hutter 2019.
    "adamw": lambda config: optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
    # Chen et al. 2023.
    "lion": lambda config: optax.scale_by_lion(config.beta1, config.beta2),
    "muon": muon_rule,
    "adafactor": adafactor_rule,
}
"""Optimizer -> its update rule, to which weight decay and the learning rate are added."""


class ScheduleNumbers(NamedTuple):
    """Holds the numbers of a schedule, float32 scalars, which the compiled step takes as arguments.

    Attributes:
      minimum: the learning rate at the last step.
      drop: the learning rate at the end of the warmup - minimum.
      warmup: the number of warmup updates.
      warmup_rise: the growth of the learning rate with each warmup update.
      decay_pace: the growth of `Decay.progress` with each update of the decay.
      decay_start: the number of updates before the decay; None if it follows the warmup.
    """

    minimum: Any
    drop: Any
    warmup: Any
    warmup_rise: Any
    decay_pace: Any
    decay_start: Any = None


def schedule_numbers(config: ScheduleConfig, total_steps: int) -> ScheduleNumbers:
    """Returns the numbers of a schedule.

    They are multiplied and rounded as XLA does it with constants, which it never divides by, so
    that the learning rate is to the bit that of a program in which they are constants.
    """
    peak, minimum, warmup = config.learning_rate, config.min_learning_rate, config.warmup_steps
    one = np.float32(1)
    start = decay_start(config, total_steps)
    return ScheduleNumbers(
        minimum=np.float32(minimum),
        drop=np.float32(peak - minimum),
        warmup=np.float32(warmup),
        warmup_rise=np.float32(peak) * (one / np.float32(warmup + 1)),
        decay_pace=one / np.float32(max(total_steps - start, 1)),
        decay_start=np.float32(start) if config.name == "wsd" else None,
    )


def decay_start(config: ScheduleConfig, total_steps: int) -> int:
    """Returns the number of updates before the decay, which is never before the warmup's end."""
    if config.name != "wsd":
        return config.warmup_steps
    return max(
        config.warmup_steps, total_steps - max(round(config.decay_fraction * total_steps), 1)
    )


def learning_rate(config: ScheduleConfig, numbers: ScheduleNumbers, count: Any) -> jax.Array:
    """Returns the learning rate of the n-th update, n counted from 0.

    With W warmup steps and peak p: p (n + 1) / (W + 1) while n < W, so that the first update is not
    zero; then from p at n = W to the minimum at n = total_steps, where it stays (nanoGPT's curve).
    With wsd, it stays at p from n = W until n = `decay_start`.

    Args:
      config: of which only the name and `decay_shape` matter; the numbers are in `numbers`.
      numbers: those of `schedule_numbers`.
      count: n, int32.
    """
    n = jnp.asarray(count, jnp.float32)
    start = numbers.warmup if numbers.decay_start is None else numbers.decay_start
    progress = jnp.clip((n - start) * numbers.decay_pace, 0.0, 1.0)
    at = Decay(progress, n, numbers.warmup, config.decay_shape)
    decayed = numbers.minimum + numbers.drop * DECAYS[config.name](at)
    return jnp.where(n < numbers.warmup, numbers.warmup_rise * (n + 1), decayed)


def make_schedule(config: ScheduleConfig, total_steps: int) -> optax.Schedule:
    """Returns `learning_rate` as a function of n alone."""
    numbers = schedule_numbers(config, total_steps)
    return lambda count: learning_rate(config, numbers, count)


def make_optimizer(config: Config) -> optax.GradientTransformationExtraArgs:
    """Returns the config's optimizer: clip by global norm, update rule, decay, learning rate.

    With muP, the rates of matrices are scaled before their decay is added, which is then the same
    at every width, or after it without `optimizer.mup_independent_decay`. The factors of
    `optimizer.rate_multipliers` come last, so that they scale the decay, too. The `update` takes
    the learning rate as the keyword argument `learning_rate`.
    """
    optimizer = config.optimizer
    clip = optimizer.grad_clip
    links: list[optax.GradientTransformation] = [
        RULES[optimizer.name](optimizer),
        optax.add_decayed_weights(optimizer.weight_decay, decay_mask),
        _scale_by_learning_rate(),
    ]
    if (of_matrices := matrix_rate(config)) != 1:
        place = 1 if optimizer.mup_independent_decay else 2
        links.insert(place, scale_matrices(of_matrices))
    if optimizer.rate_multipliers:
        links.insert(-1, scale_by_multipliers(optimizer))
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(), optax.chain(*links)
    )


def _scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Returns `optax.scale_by_learning_rate` of a schedule whose rate is an argument instead.

    Its state has the structure of optax's, and counts the updates.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        learning_rate: jax.Array,
        **others: Any,
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        del params, others
        scaled = jax.tree.map(lambda leaf: jnp.asarray(-learning_rate, leaf.dtype) * leaf, updates)
        return scaled, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    # The type of an update in optax has no required keyword arguments.
    return optax.GradientTransformationExtraArgs(init, cast(Any, update))


def decay_mask(params: Any) -> Any:
    """Returns a tree of booleans like `params`: true where weight decay applies."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return any(getattr(entry, "key", None) in _DECAYED for entry in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def updates_made(opt_state: Any) -> jax.Array:
    """Returns how many updates the optimizer has applied, which is where the schedule stands."""
    return optax.tree.get(opt_state, "ScaleByScheduleState").count
