"""The matrix product of every linear layer, with a backward pass that compiles well."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, w: jax.Array, num_contracted: int) -> jax.Array:
    """Contracts the trailing `num_contracted` axes of x with the leading ones of w.

    Autodiff would form w's gradient as a product that begins with the output's gradient. XLA on a
    CPU transposes the first factor, and for that recomputes the whole chain of residual additions
    behind it, in every layer. With x first it transposes x, which is at hand: a step of a small
    model takes a fifth less.
    """
    return jnp.tensordot(x, w, num_contracted)


def _forward(x: jax.Array, w: jax.Array, num_contracted: int) -> tuple[jax.Array, tuple]:
    return matmul(x, w, num_contracted), (x, w)


def _backward(num_contracted: int, residuals: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    num_batch = x.ndim - num_contracted
    batch, outputs = range(num_batch), range(num_batch, dy.ndim)
    dx = jax.lax.dot_general(
        dy, w, ((tuple(outputs), tuple(range(num_contracted, w.ndim))), ((), ()))
    )
    dw = jax.lax.dot_general(x, dy, ((tuple(batch), tuple(batch)), ((), ())))
    return dx, dw


matmul.defvjp(_forward, _backward)
