from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ComputeConfig
from gpt2_jax.model.norms import make_norm
from tests.model import properties


@pytest.fixture(scope="module")
def variant(tiny, noisy_params):
    model = tiny(norm="rms", position="rotary")
    return properties.make_variant(model, noisy_params(model))


def test_parameters_are_counted(variant):
    properties.assert_counts_are_those_of_the_formula(variant)
    assert set(variant.params["h"]["ln_1"]) == set(variant.params["ln_f"]) == {"scale"}


def test_cached_and_unrolled_equals_uncached_and_scanned(variant):
    properties.assert_cached_chunks_equal_the_whole(variant)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(variant):
    properties.assert_devices_give_the_same(variant)


def test_packed_documents_have_the_hidden_states_they_have_alone(variant):
    properties.assert_packed_documents_are_as_alone(variant)


def _expected(norm, x, params, epsilon):
    if norm == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params["scale"]
    deviation = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return (x - x.mean(-1, keepdims=True)) / deviation * params["scale"] + params["bias"]


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_a_norm_is_its_formula(tiny, norm, size):
    """Small values show the epsilon, large ones with a mean whether the statistics cancel."""
    rng = np.random.default_rng(0)
    config = tiny(norm=norm, layer_norm_epsilon=1e-5).config
    params = {name: rng.normal(size=32) for name in ("scale", "bias")[: 1 + (norm == "layer")]}
    x = size * (3 + rng.normal(size=(4, 32)))
    as_float32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, x))
    y = make_norm(config, ComputeConfig(dtype="float32")).apply(
        {"params": as_float32[0]}, as_float32[1]
    )
    np.testing.assert_allclose(y, _expected(norm, x, params, 1e-5), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_statistics_are_float32_whatever_the_compute_dtype(tiny, norm):
    config = tiny(norm=norm).config
    # In bfloat16 a sum of 512 ones stops at 256.
    x = jnp.where(jnp.arange(512) % 2, 1.0, -1.0).astype(jnp.bfloat16)[None]
    module = make_norm(config, ComputeConfig(dtype="bfloat16"))
    params = {"scale": jnp.ones(512), "bias": jnp.zeros(512)}
    if norm == "rms":
        del params["bias"]
    y = module.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), x.astype(np.float32), rtol=1e-2)


def test_a_mean_counts_for_rms_alone(tiny):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32)), jnp.float32)
    params = {"scale": jnp.ones(32), "bias": jnp.zeros(32)}
    layer, rms = (
        make_norm(tiny(norm=norm).config, ComputeConfig(dtype="float32"))
        for norm in ("layer", "rms")
    )
    moved = [layer.apply({"params": params}, x + shift) for shift in (0, 5)]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)
    only_scale = {"scale": params["scale"]}
    moved = [rms.apply({"params": only_scale}, x + shift) for shift in (0, 5)]
    assert np.abs(moved[0] - moved[1]).max() > 0.5


def _value_and_gradients(config, x, dy, dtype, plain):
    """Returns (y, (d_scale, d_bias), dx)."""
    module = make_norm(config, ComputeConfig(dtype=dtype, plain=plain))
    rng = np.random.default_rng(1)
    params = {
        name: jnp.asarray(rng.normal(size=x.shape[-1:]), jnp.float32) for name in ("scale", "bias")
    }

    @jax.jit
    def run(params, x, dy):
        y, pull_back = jax.vjp(lambda p, x: module.apply({"params": p}, x), params, x)
        d_params, dx = pull_back(dy.astype(y.dtype))
        return y, (d_params["scale"], d_params["bias"]), dx

    return run(params, x, dy)


# Tokens with few and with many values, one sequence and several.
@pytest.mark.parametrize("shape", [(3, 16, 32), (1, 8, 768), (7, 1600)])
def test_own_values_and_gradients_are_those_of_autodiff(tiny, shape):
    config, rng = tiny().config, np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=shape) * 3 + 1, jnp.float32) for _ in range(2))
    ours, plain = (_value_and_gradients(config, x, dy, "float32", flag) for flag in (False, True))
    np.testing.assert_array_equal(ours[0], plain[0])
    for one, other in zip(jax.tree.leaves(ours[1:]), jax.tree.leaves(plain[1:]), strict=True):
        assert np.abs(one - other).max() <= 2e-6 * np.abs(other).max()


def test_own_gradients_in_bfloat16_are_those_of_float32_rounded(tiny):
    config, rng = tiny().config, np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(4, 64, 768)), jnp.bfloat16) for _ in range(2))
    y, d_params, dx = _value_and_gradients(config, x, dy, "bfloat16", False)
    np.testing.assert_array_equal(y, _value_and_gradients(config, x, dy, "bfloat16", True)[0])
    wide = [a.astype(jnp.float32) for a in (x, dy)]
    _, expected_params, expected_dx = _value_and_gradients(config, *wide, "float32", True)
    assert y.dtype == dx.dtype == jnp.bfloat16
    for one, other in zip(d_params, expected_params, strict=True):
        assert one.dtype == jnp.float32
        assert np.abs(one - other).max() <= 2e-6 * np.abs(other).max()
    error = np.abs(dx.astype(np.float32) - expected_dx)
    assert (error <= 2**-8 * np.abs(expected_dx) + 1e-6).all()  # half a unit in the last place


def test_ours_keeps_the_input_and_two_numbers_a_token(tiny):
    x = jnp.ones((2, 8, 768), jnp.bfloat16)
    params = {"scale": jnp.ones(768), "bias": jnp.zeros(768)}
    sizes = []
    for plain in (False, True):
        module = make_norm(tiny().config, ComputeConfig(dtype="bfloat16", plain=plain))
        _, pull_back = jax.vjp(lambda x, m=module: m.apply({"params": params}, x), x)
        sizes.append(sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back)))
    assert sizes[0] <= x.nbytes + 2 * 4 * 16 + 2 * 4 * 768 < sizes[1]


def test_parameters_are_the_same_with_and_without_our_gradient(tiny):
    config, x = tiny().config, jnp.ones((1, 32))
    ours, plain = (
        make_norm(config, ComputeConfig(plain=plain)).init(jax.random.key(0), x)
        for plain in (False, True)
    )
    assert jax.tree.structure(ours) == jax.tree.structure(plain)  # with the names of their axes
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert one.dtype == other.dtype == jnp.float32
        np.testing.assert_array_equal(one, other)
