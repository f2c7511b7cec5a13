from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.linear import matmul


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "contracted"),
    [((2, 5, 8), (8, 3, 2, 4), 1), ((2, 5, 2, 4), (2, 4, 6), 2), ((7, 3), (3, 5), 1)],
)
def test_product_and_gradients_are_those_of_tensordot(x_shape, w_shape, contracted):
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, w_shape))
    axes = (None,) * w.ndim
    y, ours = jax.vjp(lambda x, w: matmul(x, w, contracted, axes, "highest"), x, w)
    expected, theirs = jax.vjp(lambda x, w: jnp.tensordot(x, w, contracted), x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    for one, other in zip(ours(dy), theirs(dy), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
