"""Drops values while training, by the same masks whether JAX's 64-bit types are on or not."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes values at random and scales the others up (Srivastava et al. 2014).

    It computes what flax's module computes, which draws its mask in float64 where 64-bit types are
    on, and so draws another.

    Attributes:
      rate: probability of dropping a value.
      deterministic: whether to drop nothing; otherwise `apply` needs `rngs={"dropout": key}`.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x with values dropped, in its dtype."""
        if self.rate == 0 or self.deterministic:
            return x
        kept = 1.0 - self.rate
        mask = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(kept), x.shape)
        return jnp.where(mask, x / kept, jnp.zeros_like(x))
