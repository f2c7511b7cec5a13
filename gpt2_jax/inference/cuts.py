"""Finds which tokens top-k, top-p and min-p keep, without sorting the vocabulary.

A cut is a logit and an id: what is above the logit stays, and of the tokens that equal it, those
with the lowest ids. Both are found by bisection, over the bits of a float and over the ids, in as
many passes over the logits as they have bits. One program so serves rows of any options.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_BITS = 32


def kept(
    logits_BxV: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array, min_p_B: jax.Array
) -> jax.Array:
    """Returns which tokens are kept, booleans [B, V]; at least the most probable one of each row.

    Args:
      logits_BxV: float32, after the temperature.
      top_k_B: int32; keeps exactly the k most probable tokens (of equals, the lowest ids); 0 keeps
        all.
      top_p_B: of these, keeps the fewest whose total probability reaches p, including the token
        that crosses p (Holtzman et al. 2020); 1 keeps all.
      min_p_B: keeps tokens at least this times as probable as the most probable (Nguyen et al.
        2024); 0 keeps all.
    """
    V = logits_BxV.shape[1]
    order_BxV = _ordered(logits_BxV)
    ones_BxV = jnp.ones(logits_BxV.shape, jnp.float32)
    # Counts are exact in float32 up to 2^24, far above any vocabulary.
    k_B = jnp.where((top_k_B == 0) | (top_k_B > V), V, top_k_B).astype(jnp.float32)
    of_k_BxV = _fewest(order_BxV, ones_BxV, k_B)
    largest_Bx1 = logits_BxV.max(-1, keepdims=True)
    mass_BxV = jnp.where(of_k_BxV, jnp.exp(logits_BxV - largest_Bx1), 0.0)
    # A target above 0, so that the most probable token stays.
    goal_B = jnp.maximum(top_p_B * mass_BxV.sum(-1), jnp.finfo(jnp.float32).tiny)
    of_p_BxV = _fewest(order_BxV, mass_BxV, goal_B) | (top_p_B == 1)[:, None]
    near_BxV = logits_BxV >= largest_Bx1 + jnp.log(min_p_B)[:, None]  # log(0) is -inf
    return of_k_BxV & of_p_BxV & near_BxV


def _ordered(x: jax.Array) -> jax.Array:
    """Returns uint32 that are ordered as the floats are."""
    # -0 equals 0; adding 0 would say so, too, if XLA did not remove it.
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    negative = bits >> 31 == 1
    return jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))


def _fewest(order_BxV: jax.Array, mass_BxV: jax.Array, goal_B: jax.Array) -> jax.Array:
    """Returns the fewest tokens from the top whose mass reaches the goal, or all of them."""

    def mass(chosen_BxV: jax.Array) -> jax.Array:
        return jnp.where(chosen_BxV, mass_BxV, 0.0).sum(-1)

    def reached_from(least_B: jax.Array) -> jax.Array:
        return mass(order_BxV >= least_B[:, None]) >= goal_B

    least_B = _largest(reached_from, _BITS, order_BxV.shape[0])
    above_BxV = order_BxV > least_B[:, None]
    equal_BxV = order_BxV == least_B[:, None]
    ids_V = jnp.arange(order_BxV.shape[1], dtype=jnp.uint32)

    def missed_before(id_B: jax.Array) -> jax.Array:
        return mass(above_BxV | (equal_BxV & (ids_V < id_B[:, None]))) < goal_B

    last_B = _largest(missed_before, order_BxV.shape[1].bit_length(), order_BxV.shape[0])
    return above_BxV | (equal_BxV & (ids_V <= last_B[:, None]))


def _largest(holds: Callable[[jax.Array], jax.Array], bits: int, rows: int) -> jax.Array:
    """Returns for each row the largest number of so many bits for which a predicate holds, uint32.

    The predicate must hold for no number above one for which it does not; for 0 it is taken to.
    """

    def set_bit(i: jax.Array, number_B: jax.Array) -> jax.Array:
        bit = jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32)
        return jnp.where(holds(number_B | bit), number_B | bit, number_B)

    return jax.lax.fori_loop(0, bits, set_bit, jnp.zeros(rows, jnp.uint32))
