"""Computes products of matrices whose factors may be rounded to bfloat16.

`compute.precision=bfloat16` keeps activations, sums and results in float32 and rounds the factors
alone. CPUs with AMX or AVX512-BF16 multiply such factors twice as fast and more, but XLA uses these
instructions only if the contracted axis of the first factor is its last and the result is float32.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gpt2_jax.parallel.platforms import platform_of

ROUNDED = "bfloat16"
"""The precision at which factors are rounded."""

_BLOCK = 32
_FEW_ROWS = 32


def rounded(x: jax.Array, precision: str | None) -> jax.Array:
    """Returns a factor as products at this precision take it."""
    return x.astype(jnp.bfloat16) if precision == ROUNDED else x


def dot(
    a: jax.Array,
    b: jax.Array,
    contracted: tuple[tuple[int, ...], tuple[int, ...]],
    precision: str | None,
) -> jax.Array:
    """Returns the contraction of axes of a with axes of b.

    Args:
      a, b: arrays of one dtype.
      contracted: the axes of a, and those of b.
      precision: see `ComputeConfig.matmul_precision`.

    Returns:
      The free axes of a, then those of b, in the dtype of a; if factors are rounded, in float32.
    """
    dimensions = (contracted, ((), ()))
    if precision != ROUNDED:
        return jax.lax.dot_general(a, b, dimensions, precision=precision)
    a, b = rounded(a, precision), rounded(b, precision)
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def dot_of_rows(a_NxI: jax.Array, b_NxO: jax.Array, precision: str | None) -> jax.Array:
    """Returns a^T b, [I, O], as `dot` does."""
    if precision != ROUNDED:
        return dot(a_NxI, b_NxO, ((0,), (0,)), precision)
    return dot(transposed(rounded(a_NxI, precision)), b_NxO, ((1,), (0,)), precision)


def is_few_rows(x: jax.Array, w: jax.Array, precision: str | None) -> bool:
    """Returns whether `dot_of_few_rows` is the faster way to contract x's last axis with w's first.

    Args:
      x: [..., I].
      w: [I, O], or of more axes, for which there is no other way.
      precision: see `ComputeConfig.matmul_precision`.
    """
    rows = math.prod(x.shape[:-1])
    plain = x.dtype == jnp.float32 and precision != ROUNDED and w.ndim == 2
    return plain and 1 < rows <= _FEW_ROWS and platform_of() == "cpu"


def dot_of_few_rows(x: jax.Array, w_IxO: jax.Array, precision: str | None) -> jax.Array:
    """Returns x w, [..., O], on a CPU without a copy of w.

    To multiply several rows, XLA copies all of w for each product: for the few rows that decoding
    multiplies, that takes longer than the product. It does not if the rows are columns, as long as
    it does not see that these were rows.
    """
    x_IxN = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    y_NxO = jax.lax.dot_general(x_IxN, w_IxO, (((0,), (0,)), ((), ())), precision=precision)
    return y_NxO.reshape(*x.shape[:-1], -1)


def transposed(x_NxM: jax.Array) -> jax.Array:
    """Returns x^T as an array of its own, which no product undoes.

    XLA merges a plain transpose with the product before or behind it, whose axes then lie as CPUs
    cannot multiply in bfloat16: that is slow, or fails when the program runs. Of two permutations
    of blocks it makes copies, and these are fast.
    """
    N, M = x_NxM.shape
    # Without whole blocks there would be a plain transpose, which XLA merges even past a barrier.
    padded = jnp.pad(x_NxM, ((0, -N % _BLOCK), (0, -M % _BLOCK)))
    rows, columns = (size // _BLOCK for size in padded.shape)
    blocks = padded.reshape(rows, _BLOCK, columns, _BLOCK)
    apart = jax.lax.optimization_barrier(blocks.transpose(2, 0, 3, 1))
    return apart.transpose(0, 2, 1, 3).reshape(padded.shape[::-1])[:M, :N]
