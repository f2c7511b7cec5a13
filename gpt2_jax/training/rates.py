"""Learning rates of single parameters: factors by name (`optimizer.rate_multipliers`).

A factor applies to the whole of an update, weight decay included, so that it has the effect of a
run with another learning rate on those parameters. It comes on top of muP's factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import optax

from gpt2_jax.config import OptimizerConfig
from gpt2_jax.config.rates import parse_multipliers
from gpt2_jax.errors import UserError
from gpt2_jax.model.mup import scaled
from gpt2_jax.model.trainable import check_patterns, matches, name_of

_KNOB = "optimizer.rate_multipliers"


def rate_multipliers(config: OptimizerConfig, params: Any) -> Any:
    """Returns a tree like `params` of the factor of each learning rate, 1 where no pattern matches.

    Args:
      config: of which `rate_multipliers` matters; the first pattern that matches counts.
      params: the parameters, their updates or a part of them; leaves may be boxed or abstract.
    """
    factors = parse_multipliers(config.rate_multipliers)

    def factor(path: tuple[Any, ...], _: Any) -> float:
        name = name_of(path)
        return next((factors[pattern] for pattern in factors if matches(pattern, name)), 1.0)

    return jax.tree_util.tree_map_with_path(
        factor, params, is_leaf=lambda leaf: hasattr(leaf, "unbox")
    )


def scale_by_multipliers(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns a rule that multiplies each update by its entry in `rate_multipliers`."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(scaled, updates, rate_multipliers(config, updates))
    )


def check_multipliers(config: OptimizerConfig, of_names: Sequence[str]) -> None:
    """Checks that every pattern of `optimizer.rate_multipliers` sets the rate of a parameter.

    Args:
      config: of the run.
      of_names: the names of all parameters of the model.

    Raises:
      UserError: for a pattern that matches none, or only parameters that earlier ones match.
    """
    patterns = list(parse_multipliers(config.rate_multipliers))
    check_patterns(_KNOB, patterns, of_names)
    free = list(of_names)
    for pattern in patterns:
        rest = [name for name in free if not matches(pattern, name)]
        if len(rest) == len(free):
            raise UserError(
                f"{_KNOB}: {pattern!r} has no effect, because the first pattern that matches "
                f"counts, and others before it match the same parameters: write {pattern!r} first"
            )
        free = rest
