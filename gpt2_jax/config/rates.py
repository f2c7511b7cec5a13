"""Factors of the learning rate by parameter name, as `optimizer.rate_multipliers` writes them."""

from __future__ import annotations

import math

from gpt2_jax.errors import UserError, short_repr

_KNOB = "optimizer.rate_multipliers"


def parse_multipliers(text: str) -> dict[str, float]:
    """Returns {pattern: factor} of `pattern=factor,...`, in order; empty text gives none.

    Raises:
      UserError: for a string of another form, a pattern named twice, or a factor that is not a
        finite number above 0.
    """
    factors: dict[str, float] = {}
    for entry in text.split(",") if text.strip() else []:
        pattern, _, number = (part.strip() for part in entry.rpartition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not pattern or not 0 <= factor < math.inf:
            raise UserError(
                f"{_KNOB}: {short_repr(entry.strip())} is not NAME=FACTOR with a finite factor "
                "above 0, such as wte=0.1"
            )
        if factor == 0:
            raise UserError(
                f"{_KNOB}: {pattern}=0 would train nothing there and still take memory for it: "
                f"use --config.optimizer.freeze={pattern}"
            )
        if pattern in factors:
            raise UserError(f"{_KNOB} names {pattern} twice: give it one factor")
        factors[pattern] = factor
    return factors
