"""Decides which updates are applied: only finite ones and, on request, none after a loss spike.

A loss is a spike if it lies more than `train.spike_threshold` deviations above the median of the
last `train.spike_window` accepted losses. The deviation is 1.4826 times the median absolute
deviation, which equals the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
Unlike mean and standard deviation, these two do not move when a few of the losses are far off.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.config import TrainConfig

# If losses hardly differ, as when one batch is repeated, the deviation approaches 0 and rounding
# errors would look like spikes. A thousandth of a nat per token is far above rounding errors, and
# below the differences between batches of real text.
_LEAST_DEVIATION = 1e-3


class LossWindow(NamedTuple):
    """Holds the accepted losses that a new one is compared with, as part of the training state.

    Attributes:
      losses: float32 [train.spike_window], a ring buffer whose next place is `count` modulo its
        length.
      count: int32, the number of losses accepted so far.
      spikes: int32, the number of latest losses in a row that were spikes.
    """

    losses: jax.Array
    count: jax.Array
    spikes: jax.Array


def empty_window(config: TrainConfig) -> LossWindow | None:
    """Returns the window of a new run, or None if `train.spike_threshold` is 0."""
    if not config.spike_threshold:
        return None
    zero = jnp.zeros((), jnp.int32)
    return LossWindow(jnp.zeros(config.spike_window), zero, zero)


def judge(
    config: TrainConfig, window: LossWindow | None, loss: jax.Array, finite: jax.Array
) -> tuple[jax.Array, LossWindow | None, jax.Array | None]:
    """Decides on the update of one step.

    Nothing is a spike before the window is full. After `train.max_spikes` in a row, every loss is
    accepted until one is in range again. Otherwise a lasting change would be refused forever,
    because refused losses do not enter the window.

    Args:
      config: the knobs.
      window: the accepted losses, or None to detect no spikes.
      loss: float32 scalar.
      finite: boolean scalar, whether loss and gradient are finite.

    Returns:
      (whether to apply the update, the next window, the largest loss that was allowed). The last is
      infinity if there was no limit, and None without a window.
    """
    if window is None:
        return finite, None, None
    limit = jnp.where(
        window.count >= config.spike_window,
        largest_usual_loss(window.losses, config.spike_threshold),
        jnp.inf,
    )
    spikes = jnp.where(finite, jnp.where(loss > limit, window.spikes + 1, 0), window.spikes)
    limit = jnp.where(window.spikes < config.max_spikes, limit, jnp.inf)
    accepted = finite & (loss <= limit)
    place = window.count % config.spike_window
    losses = jnp.where(accepted, window.losses.at[place].set(loss), window.losses)
    return accepted, LossWindow(losses, window.count + accepted, spikes), limit


def largest_usual_loss(losses: jax.Array, threshold: float) -> jax.Array:
    """Returns median + `threshold` deviations of losses [W]; see the module's docstring."""
    median = jnp.median(losses)
    deviation = 1.4826 * jnp.median(jnp.abs(losses - median))
    return median + threshold * jnp.maximum(deviation, _LEAST_DEVIATION)
