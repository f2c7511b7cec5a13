"""Mixtures of token sets, as `data.mixture` writes them."""

from __future__ import annotations

import contextlib
import fractions
import math
import re

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import normal_folder

# A round of a mixture is an array in memory, of this length at most.
_LONGEST_ROUND = 100_000
# Exponents are not allowed, because they make numbers of any length.
_WEIGHT = re.compile(r"[\d./]+")


def parse_mixture(mixture: str) -> dict[str, int]:
    """Returns {folder: weight} of `folder=weight,...`, as the smallest integers in proportion.

    Raises:
      UserError: for a string of another form, a folder named twice, or weights of too many digits.
    """
    weights: dict[str, fractions.Fraction] = {}
    for entry in mixture.split(","):
        folder, _, text = entry.strip().rpartition("=")
        folder = normal_folder(folder, "data.mixture") if folder else ""
        weight = fractions.Fraction(0)
        if _WEIGHT.fullmatch(text.strip()):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                weight = fractions.Fraction(text.strip())
        if not folder or weight <= 0:
            raise UserError(
                f"data.mixture: {entry.strip()!r} is not FOLDER=WEIGHT with a weight above 0, such "
                "as data/web=0.7"
            )
        if folder in weights:
            raise UserError(f"data.mixture names {folder} twice: give it one weight")
        weights[folder] = weight
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    whole = [int(weight * scale) for weight in weights.values()]
    divisor = math.gcd(*whole)
    whole = [weight // divisor for weight in whole]
    if sum(whole) > _LONGEST_ROUND:
        raise UserError(f"data.mixture={mixture}: give the weights with fewer digits")
    return dict(zip(weights, whole, strict=True))
