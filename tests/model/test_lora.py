"""Tests for adapters: what they compute, merged or not, with a cache, and sharded."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from gpt2_jax.config import ComputeConfig, MeshConfig, ModelConfig
from gpt2_jax.model.build import abstract_params, boxed_params, build_decoder, build_model
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lora import LORA_A, LORA_B, merge, without_adapters
from gpt2_jax.model.params import unstack
from gpt2_jax.model.positions import unused_axes
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context, shardings

EVERY = "attn.c_attn,attn.c_proj,mlp.c_fc,mlp.c_proj"
MODEL = ModelConfig(
    num_layers=2, num_heads=4, d_model=16, context_length=12, vocab_size=40, vocab_multiple=8,
    lora_rank=4, lora_alpha=8.0, lora_targets=EVERY,
)  # fmt: skip
COMPUTE = ComputeConfig(dtype="float32", loss_chunk=0)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 40, (8, 12)), jnp.int32)


def noisy(config: ModelConfig):
    """Parameters of which none is zero."""

    def noise(path, leaf):
        rng = np.random.default_rng(sum(map(ord, jax.tree_util.keystr(path))))
        return 0.2 * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(noise, abstract_params(config))


def logits(config, params, compute=COMPUTE):
    run = build_model(config, compute).apply
    return jax.jit(lambda p, t: run({"params": p}, t, method=GPT2.logits)[0])(params, TOKENS)


def leaves_named(params, name):
    pairs = jax.tree_util.tree_leaves_with_path(params)
    return [leaf for path, leaf in pairs if path[-1].key == name]


def test_shapes_and_first_values():
    params = jax.jit(lambda key: meta.unbox(boxed_params(MODEL, key)))(jax.random.key(0))
    attn, mlp = params["h"]["attn"], params["h"]["mlp"]
    assert attn["c_attn"][LORA_A].shape == (2, 16, 4)
    assert attn["c_attn"][LORA_B].shape == (2, 4, 3, 4, 4)
    assert attn["c_proj"][LORA_A].shape == (2, 4, 4, 4)
    assert attn["c_proj"][LORA_B].shape == (2, 4, 16)
    assert mlp["c_proj"][LORA_A].shape == (2, 64, 4)
    assert not any(leaf.any() for leaf in leaves_named(params, LORA_B))
    for leaf in leaves_named(params, LORA_A):
        bound = 1 / np.sqrt(np.prod(leaf.shape[1:-1]))
        assert 0.9 * bound < abs(np.asarray(leaf)).max() <= bound
        assert not np.array_equal(leaf[0], leaf[1])
    padding = (MODEL.padded_vocab_size - MODEL.vocab_size) * MODEL.d_model
    assert num_params(MODEL) == sum(leaf.size for leaf in jax.tree.leaves(params)) - padding


def test_an_adapter_of_zeros_changes_no_logit():
    plain = without_adapters(MODEL)
    params = noisy(MODEL)
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key == LORA_B else leaf, params
    )
    base = jax.jit(merge, static_argnums=1)(zeroed, MODEL)  # to the bit the kernels of `params`
    np.testing.assert_array_equal(logits(MODEL, zeroed), logits(plain, base))
    assert abs(logits(MODEL, params) - logits(plain, base)).max() > 0.1


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("targets", [EVERY, "mlp.c_gate,attn.c_attn"])
def test_merged_weights_give_the_same_logits(targets, plain):
    gated = "swiglu" if "gate" in targets else "gelu_new"
    config = dataclasses.replace(MODEL, lora_targets=targets, activation=gated)
    params = noisy(config)
    merged = merge(params, config)
    compute = dataclasses.replace(COMPUTE, plain=plain)
    expected = logits(config, params, compute)
    assert not leaves_named(merged, LORA_A)
    np.testing.assert_allclose(
        logits(without_adapters(config), merged, compute), expected, rtol=0, atol=1e-5
    )


def test_w_plus_alpha_over_r_times_a_b():
    params = noisy(MODEL)
    attn = params["h"]["attn"]["c_attn"]
    product = np.einsum("ir,rqhk->iqhk", attn[LORA_A][1], attn[LORA_B][1])
    expected = attn["kernel"][1] + 8.0 / 4 * product
    merged = merge(params, MODEL)["h"]["attn"]["c_attn"]["kernel"][1]
    np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_decoding_with_a_cache_equals_a_pass_without():
    params = noisy(MODEL)
    decoder = build_decoder(MODEL, COMPUTE)
    unrolled = unstack(params, MODEL.num_layers)
    cache = init_cache(MODEL, "float32", 8)
    step = jax.jit(lambda c, t: decoder.apply({"params": unrolled}, t, c, method=GPT2.logits))
    first, cache = step(cache, TOKENS[:, :7])
    outputs = [first]
    for i in range(7, 12):
        out, cache = step(cache, TOKENS[:, i : i + 1])
        outputs.append(out)
    cached = jnp.concatenate(outputs, axis=1)
    np.testing.assert_allclose(cached, logits(MODEL, params), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2), (1, 2, 4)])
def test_eight_devices_give_the_logits_and_gradients_of_one(axes):
    params = noisy(MODEL)
    model = build_model(MODEL, COMPUTE)

    def loss(params, tokens):
        return (model.apply({"params": params}, tokens, method=GPT2.logits)[0] ** 2).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params, TOKENS)
    mesh, rules = make_mesh(MeshConfig(*axes)), Rules()
    boxed = jax.eval_shape(lambda: boxed_params(MODEL, jax.random.key(0)))
    placed = jax.device_put(params, shardings(boxed, mesh, rules, unused=unused_axes(MODEL)))
    with sharding_context(mesh, rules):
        sharded_value, sharded = jax.jit(jax.value_and_grad(loss))(placed, TOKENS)
    assert abs(sharded_value - value) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), sharded, grads)


def dropped_loss(params, compute, config):
    model = build_model(config, compute, train=True)
    rngs = {"dropout": jax.random.key(3)}
    return (model.apply({"params": params}, TOKENS, rngs=rngs)[0] ** 2).mean()


@pytest.mark.slow
def test_dropout_acts_in_training_alone():
    config, params = dataclasses.replace(MODEL, lora_dropout=0.5), noisy(MODEL)
    run = jax.jit(dropped_loss, static_argnums=(1, 2))
    assert abs(run(params, COMPUTE, config) - run(params, COMPUTE, MODEL)) > 1e-3
    np.testing.assert_array_equal(logits(config, params), logits(MODEL, params))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_nothing(remat):
    config, params = dataclasses.replace(MODEL, lora_dropout=0.5), noisy(MODEL)
    run = jax.jit(jax.value_and_grad(dropped_loss), static_argnums=(1, 2))
    dropped, grads = run(params, COMPUTE, config)
    again, regrads = run(params, dataclasses.replace(COMPUTE, remat=remat), config)
    np.testing.assert_allclose(again, dropped, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(regrads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
