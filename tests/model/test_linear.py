from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ComputeConfig, MeshConfig
from gpt2_jax.model.layout import merged
from gpt2_jax.model.linear import Linear, matmul
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context


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


_SHAPES = [
    ((32,), (3, 4, 8), ("embed", None, "heads", "head_dim")),
    ((4, 8), (32,), ("heads", "head_dim", "embed")),
    ((32,), (128,), ("embed", "mlp")),
]


def _linear(inputs, outputs, axes):
    compute = ComputeConfig(dtype="float32")
    return Linear(inputs, outputs, axes, compute, 0.02)


@pytest.mark.parametrize(("inputs", "outputs", "axes"), _SHAPES)
def test_a_layer_contracts_its_axes_and_keeps_the_shapes_of_its_parameters(inputs, outputs, axes):
    layer, rng = _linear(inputs, outputs, axes), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, *inputs)), jnp.float32)
    params = nn.unbox(layer.init(jax.random.key(0), x))["params"]
    assert params["kernel"].shape == inputs + outputs and params["bias"].shape == outputs
    params["bias"] = jnp.asarray(rng.normal(size=outputs), jnp.float32)

    def expected(params, x):
        y = jnp.tensordot(x, params["kernel"], len(inputs)) + params["bias"]
        return y.reshape(*y.shape[:2], -1)  # without a mesh, new axes come merged

    y, ours = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)
    z, theirs = jax.vjp(expected, params, x)
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    for one, other in zip(*(jax.tree.leaves(f(dy)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sizes", "flat"), [((2, 4, 1), True), ((2, 2, 2), False)])
def test_axes_of_heads_are_merged_where_the_mesh_divides_none_of_them(sizes, flat):
    layer = _linear(*_SHAPES[0])
    x = jnp.zeros((16, 4, 32))
    with sharding_context(make_mesh(MeshConfig(*sizes)), Rules()):
        params = jax.eval_shape(layer.init, jax.random.key(0), x)
        program = str(jax.make_jaxpr(lambda p: layer.apply(nn.unbox(p), x))(params))
        assert merged(("heads", "head_dim")) == ((None,) if flat else None)
        assert merged(("embed",)) == ("embed",)
    assert ("f32[16,4,96] = dot_general" in program) == flat
    assert ("f32[16,4,3,4,8] = dot_general" in program) != flat
