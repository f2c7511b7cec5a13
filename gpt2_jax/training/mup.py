"""Learning rates of muP: the matrices of the blocks learn slower in wider models.

`model/mup.py` says what muP is. The update of a matrix must change its outputs by as much at every
width. Its outputs are sums over the width, in which the terms of an update that is correlated with
its inputs have the same sign; so it must fall with the width, by a power that depends on how the
update rule scales it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from gpt2_jax.config import Config, OptimizerConfig
from gpt2_jax.model.mup import scaled
from gpt2_jax.training.matrices import matrix_axes

# Optimizer -> the power of 1 / m in the learning rate of matrices. The config refuses Adafactor,
# whose steps are relative to the size of a parameter, but not below a constant: no power fits both.
_POWERS: dict[str, Callable[[OptimizerConfig], float]] = {
    # All entries of an update are about 1, whatever the width (Yang et al. 2022, table 8). Those of
    # Lion are exactly 1 or -1.
    "adamw": lambda config: 1.0,
    "lion": lambda config: 1.0,
    # All singular values of an update are equal. At 1 they need no power; `adam` multiplies them by
    # a factor that grows with the root of the width (Yang et al. 2023, "A Spectral Condition for
    # Feature Learning").
    "muon": lambda config: 0.5 if config.muon_scale == "adam" else 0.0,
}


def matrix_rate(config: Config) -> float:
    """Returns the factor of the learning rate of the blocks' matrices; 1 without muP."""
    m = config.model.mup_width_multiplier
    return 1.0 if m == 1 else m ** -_POWERS[config.optimizer.name](config.optimizer)


def rate_factors(params: Any, of_matrices: float) -> Any:
    """Returns a tree like `params` of the factor of each learning rate.

    Args:
      params: the parameters, or their updates.
      of_matrices: what `matrix_rate` returns; other parameters have a factor of 1.
    """

    def factor(path: tuple[Any, ...], _: Any) -> float:
        return 1.0 if of_matrices == 1 or matrix_axes(path) is None else of_matrices

    return jax.tree_util.tree_map_with_path(factor, params)


def scale_matrices(of_matrices: float) -> optax.GradientTransformation:
    """Returns a rule that multiplies each update by its entry in `rate_factors`."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(scaled, updates, rate_factors(updates, of_matrices))
    )
