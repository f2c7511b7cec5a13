from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    y = make_norm(config, "float32").apply({"params": as_float32[0]}, as_float32[1])
    np.testing.assert_allclose(y, _expected(norm, x, params, 1e-5), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_statistics_are_float32_whatever_the_compute_dtype(tiny, norm):
    config = tiny(norm=norm).config
    # In bfloat16 a sum of 512 ones stops at 256.
    x = jnp.where(jnp.arange(512) % 2, 1.0, -1.0).astype(jnp.bfloat16)[None]
    module = make_norm(config, "bfloat16")
    params = {"scale": jnp.ones(512), "bias": jnp.zeros(512)}
    if norm == "rms":
        del params["bias"]
    y = module.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), x.astype(np.float32), rtol=1e-2)


def test_a_mean_counts_for_rms_alone(tiny):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32)), jnp.float32)
    params = {"scale": jnp.ones(32), "bias": jnp.zeros(32)}
    layer, rms = (make_norm(tiny(norm=norm).config, "float32") for norm in ("layer", "rms"))
    moved = [layer.apply({"params": params}, x + shift) for shift in (0, 5)]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)
    only_scale = {"scale": params["scale"]}
    moved = [rms.apply({"params": only_scale}, x + shift) for shift in (0, 5)]
    assert np.abs(moved[0] - moved[1]).max() > 0.5
