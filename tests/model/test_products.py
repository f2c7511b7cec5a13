"""Products with rounded factors, in every form that XLA makes of them on this CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.products import (
    ROUNDED,
    dot,
    dot_of_few_rows,
    dot_of_rows,
    is_few_rows,
    transposed,
)

# Multiples of the blocks of `transposed`, and not.
_SIZES = [(64, 32, 96), (64, 31, 96), (7, 64, 5)]


def factors(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def exact(*arrays):
    """Returns the arrays after the rounding, in float64."""
    return [np.asarray(x.astype(jnp.bfloat16), np.float64) for x in arrays]


@pytest.mark.parametrize(("N", "M", "P"), _SIZES)
def test_transposed_is_the_transpose(N, M, P):
    del P
    (x,) = factors((N, M))
    np.testing.assert_array_equal(jax.jit(transposed)(x), np.asarray(x).T)


@pytest.mark.parametrize(("N", "M", "P"), _SIZES)
def test_only_the_factors_are_rounded(N, M, P):
    x, w, dy = factors((N, M), (M, P), (N, P))
    forms = {
        "forward": (lambda a, b: dot(a, b, ((1,), (0,)), ROUNDED), (x, w), "nm,mo->no"),
        "of x": (lambda a, b: dot(a, b, ((1,), (1,)), ROUNDED), (dy, w), "no,mo->nm"),
        "of w": (lambda a, b: dot_of_rows(a, b, ROUNDED), (x, dy), "nm,no->mo"),
        # What the loss does: the result of a product, transposed.
        "behind": (
            lambda a, b: transposed(dot(a, b, ((1,), (0,)), ROUNDED)),
            (x, w),
            "nm,mo->on",
        ),
    }
    for form, args, letters in forms.values():
        result = jax.jit(form)(*args)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, np.einsum(letters, *exact(*args)), rtol=1e-5, atol=1e-4)


def test_without_rounding_it_is_the_product():
    x, dy = factors((6, 4), (6, 5))
    for product in (dot_of_rows(x, dy, "highest"), dot(x, dy, ((0,), (0,)), None)):
        np.testing.assert_allclose(product, np.asarray(x).T @ np.asarray(dy), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 64), (32, 64)])
def test_few_rows_are_multiplied_without_a_copy_of_the_matrix(shape):
    x, w = factors(shape, (64, 96))
    assert is_few_rows(x, w, "highest")
    product = jax.jit(lambda x, w: dot_of_few_rows(x, w, "highest"))
    np.testing.assert_allclose(product(x, w), np.asarray(x) @ np.asarray(w), rtol=1e-5, atol=1e-5)
    # XLA's other way to multiply copies the matrix, and takes only products of rows.
    assert "lhs_contracting_dims={0}" in product.lower(x, w).compile().as_text()


@pytest.mark.parametrize(
    ("shape", "w_shape", "dtype", "precision"),
    [
        ((1, 1, 64), (64, 96), "float32", "highest"),  # a vector needs no copy
        ((33, 64), (64, 96), "float32", "highest"),
        ((8, 64), (64, 3, 2, 16), "float32", "highest"),
        ((8, 64), (64, 96), "float32", ROUNDED),
        ((8, 64), (64, 96), "bfloat16", "default"),
    ],
)
def test_other_products_are_as_xla_multiplies_them(shape, w_shape, dtype, precision):
    x, w = (x.astype(dtype) for x in factors(shape, w_shape))
    assert not is_few_rows(x, w, precision)
