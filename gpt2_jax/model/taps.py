"""Shows values from inside the model to whoever asks for them, and changes them on the way.

The modules pass what they compute through `tap`. It adds no operation to a program that asks for
nothing, so that training and decoding are what they were without it.

    values: `apply(..., mutable=[VALUES])` returns those of every tap, by module and name
    edits:  `apply({"params": ..., EDITS: tree})` applies the `Edit`s of a tree of the same form

The blocks must be unrolled to be edited.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

VALUES = "intermediates"  # flax's own name for such a collection
EDITS = "edits"

Tap = Callable[[str, jax.Array], jax.Array]


class Edit(NamedTuple):
    """Describes a change of a value x: it becomes where(replaced, donor, factor * x).

    Attributes:
      factor: what x is multiplied by; 1 changes no bit of a normal number.
      replaced: where the donor takes its place, booleans.
      donor: what takes its place.
    """

    factor: jax.Array | float = 1.0
    replaced: jax.Array | bool = False
    donor: jax.Array | float = 0.0

    def apply(self, x: jax.Array) -> jax.Array:
        """Returns the changed value, in the dtype of x; all fields broadcast to its shape."""
        return jnp.where(self.replaced, self.donor, self.factor * x).astype(x.dtype)


def tap(module: nn.Module, name: str, value: jax.Array) -> jax.Array:
    """Returns a value after the edit that it gets, if any, and shows it in the module's `VALUES`.

    Args:
      module: that computes the value.
      name: of the value within it.
      value: an array.
    """
    if module.has_variable(EDITS, name):
        edit: Any = module.get_variable(EDITS, name)
        value = edit.apply(value)
    module.sow(VALUES, name, value, reduce_fn=_latest, init_fn=lambda: None)
    return value


def tap_of(module: nn.Module) -> Tap:
    """Returns `tap` for one module, which functions outside of it can call."""
    return functools.partial(tap, module)


def untapped(name: str, value: jax.Array) -> jax.Array:
    """Returns the value: the tap of a function that is called outside of a module."""
    del name
    return value


def _latest(earlier: Any, value: jax.Array) -> jax.Array:
    del earlier
    return value
