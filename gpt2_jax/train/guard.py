"""Which updates are applied: none that is not finite and, if asked for, none of a loss that spikes.

A loss spikes that lies more than `train.spike_threshold` deviations above the median of the last
`train.spike_window` accepted ones. The deviation is 1.4826 times their median distance from the
median, which for a normal distribution is its standard deviation (Rousseeuw and Croux 1993): unlike
that, neither it nor the median moves when some of the losses are far off.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.config import TrainConfig

# Of losses that hardly differ, as those of one batch over and over, the deviation comes close to 0,
# and rounding would spike. A thousandth of a nat per token is far above rounding, and less than
# batches of real text differ by.
_LEAST_DEVIATION = 1e-3


class LossWindow(NamedTuple):
    """The accepted losses that a new one is measured by: a part of the training state.

    Attributes:
      losses: float32 [train.spike_window], a ring: the next one goes to `count` modulo its length.
      count: int32, losses accepted so far.
      spikes: int32, losses in a row, up to now, that spiked.
    """

    losses: jax.Array
    count: jax.Array
    spikes: jax.Array


def empty_window(config: TrainConfig) -> LossWindow | None:
    """The window of a run that begins; None where spikes are not looked for."""
    if not config.spike_threshold:
        return None
    zero = jnp.zeros((), jnp.int32)
    return LossWindow(jnp.zeros(config.spike_window), zero, zero)


def judge(
    config: TrainConfig, window: LossWindow | None, loss: jax.Array, finite: jax.Array
) -> tuple[jax.Array, LossWindow | None, jax.Array | None]:
    """Decides on the update of one step.

    Nothing spikes before the window is full. After `train.max_spikes` in a row, losses are taken as
    they come until one is in range again: a change that lasts would else be refused for as long,
    while the window, which it does not enter, stays what it is.

    Args:
      window: None to look for no spikes.
      loss: float32 scalar.
      finite: whether loss and gradient are.

    Returns:
      (whether to apply the update, the next window, the largest loss that was allowed: infinity
      where there was no limit; None without a window).
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
    """Median + `threshold` deviations of losses [W]; see the module's docstring."""
    median = jnp.median(losses)
    deviation = 1.4826 * jnp.median(jnp.abs(losses - median))
    return median + threshold * jnp.maximum(deviation, _LEAST_DEVIATION)
