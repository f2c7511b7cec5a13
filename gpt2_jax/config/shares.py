"""The shares of a mixture of token sets, as `data.mixture` writes them."""

from __future__ import annotations

import contextlib
import fractions
import math
import posixpath
import re

from gpt2_jax.errors import UserError

# A round of a mixture is laid out in memory.
_LONGEST_ROUND = 100_000
# No exponents: they make numbers of any length.
_SHARE = re.compile(r"[\d./]+")


def read_shares(mixture: str) -> dict[str, int]:
    """The smallest whole numbers in the proportions that `folder=share,...` gives.

    Raises:
      UserError: for text of another form, a folder named twice, or shares of too many digits.
    """
    shares: dict[str, fractions.Fraction] = {}
    for entry in mixture.split(","):
        folder, _, text = entry.strip().rpartition("=")
        folder = posixpath.normpath(folder) if folder else ""
        share = fractions.Fraction(0)
        if _SHARE.fullmatch(text.strip()):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                share = fractions.Fraction(text.strip())
        if not folder or share <= 0:
            raise UserError(
                f"data.mixture: {entry.strip()!r} is not FOLDER=SHARE with a share above 0, such "
                "as data/web=0.7"
            )
        if folder in shares:
            raise UserError(f"data.mixture names {folder} twice: give it one share")
        shares[folder] = share
    scale = math.lcm(*(share.denominator for share in shares.values()))
    whole = [int(share * scale) for share in shares.values()]
    divisor = math.gcd(*whole)
    whole = [share // divisor for share in whole]
    if sum(whole) > _LONGEST_ROUND:
        raise UserError(f"data.mixture={mixture}: give the shares with fewer digits")
    return dict(zip(shares, whole, strict=True))
