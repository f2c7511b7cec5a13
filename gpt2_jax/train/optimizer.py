"""AdamW as GPT-2 is trained today: warmup, decay, clipping, weight decay by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gpt2_jax.config import Config, ScheduleConfig

# Matrices and embeddings decay, biases and norms never do. By name: stacked layers add an axis.
_DECAYED = frozenset({"kernel", "wte", "wpe", "lm_head"})

_DECAY_SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: jnp.ones_like(progress),
}


def make_schedule(config: ScheduleConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of the n-th update, n counted from 0.

    With W warmup steps and peak p: p (n + 1) / (W + 1) while n < W, so that the first update is not
    zero; then from p at n = W to the minimum at n = total_steps, where it stays (nanoGPT's curve).
    """
    peak, end, warmup = config.learning_rate, config.min_learning_rate, config.warmup_steps
    decay = _DECAY_SHAPES[config.name]

    def learning_rate(count: Any) -> jax.Array:
        n = jnp.asarray(count, jnp.float32)
        progress = jnp.clip((n - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        decayed = end + (peak - end) * decay(progress)
        return jnp.where(n < warmup, peak * (n + 1) / (warmup + 1), decayed)

    return learning_rate


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (Loshchilov & Hutter 2019) on the schedule of the config."""
    adamw = config.optimizer
    return optax.chain(
        optax.clip_by_global_norm(adamw.grad_clip) if adamw.grad_clip else optax.identity(),
        optax.adamw(
            make_schedule(config.schedule, config.train.total_steps),
            b1=adamw.beta1,
            b2=adamw.beta2,
            eps=adamw.epsilon,
            weight_decay=adamw.weight_decay,
            mask=decay_mask,
        ),
    )


def decay_mask(params: Any) -> Any:
    """A tree of booleans like `params`: true where weight decay applies."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return any(getattr(entry, "key", None) in _DECAYED for entry in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def updates_made(opt_state: Any) -> jax.Array:
    """How many updates the optimizer has applied, which is where the schedule stands."""
    return optax.tree.get(opt_state, "ScaleByScheduleState").count
