"""Defines linear layers and their matrix product, whose backward pass shards well."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gpt2_jax.config import ComputeConfig
from gpt2_jax.model.layout import Axes, constrain, gather, merged
from gpt2_jax.model.lora import RANK_AXIS, Adapter, declare
from gpt2_jax.model.products import (
    ROUNDED,
    dot,
    dot_of_few_rows,
    dot_of_rows,
    is_few_rows,
    rounded,
)

PRODUCT = "product"
"""The name of products for `jax.ad_checkpoint`, whose own policies see no custom gradients."""


class Linear(nn.Module):
    """Computes x W + b, contracting the trailing axes of x with the leading axes of W.

    Several adjacent inputs or outputs are merged into one axis, unless the mesh divides one of
    them; the new axes of the result are then merged, too.

    Attributes:
      inputs, outputs: sizes of the contracted axes and of the new axes.
      axes: a logical name for each axis of W, inputs first.
      compute: gives the dtype and the precision of the product.
      std: deviation of the normal distribution that initializes W; b is initialized to 0.
      use_bias: whether there is a b.
      adapter: what is added to the product (LoRA); None if nothing is.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    compute: ComputeConfig
    std: float
    use_bias: bool = True
    adapter: Adapter | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x W + b in the compute dtype, [..., outputs] or, merged, [..., their product]."""
        kernel_init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
        kernel: Any = self.param("kernel", kernel_init, self.inputs + self.outputs, jnp.float32)
        bias = self._bias()
        added = self._adapted(x)
        product = _plain_matmul if self.compute.plain else matmul
        num_inputs, axes = len(self.inputs), self.axes
        ins, outs = merged(axes[:num_inputs]), merged(axes[num_inputs:])
        if ins and outs:
            # A TPU pads the last axis to 128 numbers, so that heads of width 64 would take twice
            # their size. Merged, they have one long axis.
            x = x.reshape(*x.shape[: x.ndim - num_inputs], -1)
            kernel = kernel.reshape(x.shape[-1], -1)
            bias = None if bias is None else bias.reshape(-1)
            num_inputs, axes = 1, ins + outs
        y: Any = product(x, kernel, num_inputs, axes, self.compute.matmul_precision)
        y = checkpoint_name(y, PRODUCT)
        y = y if added is None else y + added
        return y if bias is None else y + bias.astype(self.compute.dtype)

    def _adapted(self, x: jax.Array) -> jax.Array | None:
        """Returns (alpha / r) (x A) B with the axes of x W; None without an adapter."""
        if (adapter := self.adapter) is None:
            return None
        num_inputs, precision = len(self.inputs), self.compute.matmul_precision
        a, b = declare(self, adapter, self.inputs, self.outputs, self.axes)
        product = _plain_matmul if self.compute.plain else matmul
        of_inputs, of_outputs = self.axes[:num_inputs], self.axes[num_inputs:]
        x = adapter.dropped(x)
        ins, outs = merged(of_inputs), merged(of_outputs)
        if ins and outs:  # the kernel's axes are merged, too
            x = x.reshape(*x.shape[: x.ndim - num_inputs], -1)
            a, b = a.reshape(-1, adapter.rank), b.reshape(adapter.rank, -1)
            num_inputs, of_inputs, of_outputs = 1, ins, outs
        h: Any = product(x, a, num_inputs, (*of_inputs, RANK_AXIS), precision)
        y: Any = product(h, b, 1, (RANK_AXIS, *of_outputs), precision)
        return (adapter.alpha / adapter.rank) * y

    def _bias(self) -> jax.Array | None:
        """Declares b; None without one."""
        if not self.use_bias:
            return None
        axes = tuple(
            "vector" if name == "embed" else name for name in self.axes[len(self.inputs) :]
        )
        init = nn.with_logical_partitioning(nn.initializers.zeros, axes)
        bias: Any = self.param("bias", init, self.outputs, jnp.float32)
        return bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def matmul(
    x: jax.Array, w: jax.Array, num_contracted: int, axes: Axes, precision: str | None
) -> jax.Array:
    """Contracts the trailing `num_contracted` axes of x with the leading ones of w, in x's dtype.

    Autodiff would keep the gathered w of every layer for the backward pass. Here w is gathered
    again, and its gradient is constrained to w's own sharding at once.

    Autodiff would also compute w's gradient as a product whose first factor is the output's
    gradient. XLA on a CPU transposes the first factor, and to do so recomputes the whole chain of
    residual additions behind it, in every layer. With x first it transposes x, which is already
    computed: a step of a small model takes a fifth less time.

    Args:
      x: activations [..., contracted axes].
      w: the parameter as it is stored.
      num_contracted: number of axes to contract.
      axes: logical names of w's axes.
      precision: precision of the products; see `ComputeConfig.matmul_precision`.
    """
    return _forward(x, w, num_contracted, axes, precision)[0]


def _plain_matmul(
    x: jax.Array, w: jax.Array, num_contracted: int, axes: Axes, precision: str | None
) -> jax.Array:
    """Returns what `matmul` does; autodiff computes its gradients."""
    w = gather(w, axes, x.dtype)
    x, w = (_rounded_forward(factor, precision) for factor in (x, w))
    return jnp.tensordot(x, w, num_contracted, precision=precision)


def _rounded_forward(factor: jax.Array, precision: str | None) -> jax.Array:
    """Returns a factor rounded, in its own dtype; its gradient is not rounded."""
    error = rounded(factor, precision).astype(factor.dtype) - factor
    return factor + jax.lax.stop_gradient(error)


def _forward(
    x: jax.Array, w: jax.Array, num_contracted: int, axes: Axes, precision: str | None
) -> tuple[jax.Array, Any]:
    x = rounded(x, precision)
    whole = gather(w, axes, x.dtype)
    if num_contracted == 1 and is_few_rows(x, w, precision):
        return dot_of_few_rows(x, whole, precision), (x, w)
    of_x, of_w = range(x.ndim - num_contracted, x.ndim), range(num_contracted)
    return dot(x, whole, (tuple(of_x), tuple(of_w)), precision), (x, w)


def _backward(
    num_contracted: int, axes: Axes, precision: str | None, residuals: Any, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    # Rows are one axis here: contracting two, XLA on a CPU copies x transposed for w's gradient,
    # and computes what made x, such as the activation, once more while it does.
    outputs = dy.shape[x.ndim - num_contracted :]
    x_NxI = x.reshape(-1, *w.shape[:num_contracted])
    dy_NxO = rounded(dy, precision).reshape(-1, *outputs)
    of_dy, of_w = range(1, dy_NxO.ndim), range(num_contracted, w.ndim)
    dx_NxI = dot(dy_NxO, gather(w, axes, x.dtype), (tuple(of_dy), tuple(of_w)), precision)
    if w.ndim == 2 or precision == ROUNDED:  # which CPUs can only multiply as matrices
        rows = len(x_NxI)
        dw = dot_of_rows(x_NxI.reshape(rows, -1), dy_NxO.reshape(rows, -1), precision)
        dw = dw.reshape(w.shape)
    else:
        dw = dot(x_NxI, dy_NxO, ((0,), (0,)), precision)
    return dx_NxI.reshape(x.shape), constrain(dw, axes).astype(w.dtype)


matmul.defvjp(_forward, _backward)
