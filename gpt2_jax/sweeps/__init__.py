"""Sweeps: many runs from one file, resumed point by point. Imports no JAX.

A sweep file is Python and defines `get_sweep()`, which returns a `Sweep` made of the functions
here. `gpt2-jax sweep --sweep FILE --out DIR` runs it.
"""

from gpt2_jax.sweeps.axes import Points, arms, axis, chain, logspace2, product, seeds, zipped
from gpt2_jax.sweeps.sweep import Sweep, best_of

__all__ = [
    "Points",
    "Sweep",
    "arms",
    "axis",
    "best_of",
    "chain",
    "logspace2",
    "product",
    "seeds",
    "zipped",
]
