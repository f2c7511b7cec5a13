"""With muP a model is GPT-2 with other constants, and computes the same in every way it can."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.build import boxed_params
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.loss import plain_cross_entropy, weighted_cross_entropy
from gpt2_jax.model.params import output_table
from tests.model import properties

# Width 32 and heads of 8 against a base of 8 and heads of 4, so that m is 4.
_MUP = {
    "mup_base_width": 8,
    "mup_base_head_dim": 4,
    "mup_input_alpha": 3.0,
    "mup_output_alpha": 2.5,
}


@functools.cache
def deviations(**changes):
    """The standard deviation of each new parameter, for a width of 128."""
    config = ModelConfig(2, 4, 128, 64, vocab_size=61, tie_embeddings=False, **changes)
    params = jax.jit(lambda key: nn.unbox(boxed_params(config, key)))(jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(p, simple=True, separator="/"): float(np.std(x)) for p, x in leaves
    }


@pytest.mark.parametrize(
    "residual_init",
    ["scaled", *(pytest.param(x, marks=pytest.mark.slow) for x in ("plain", "zero"))],
)
def test_only_matrices_of_blocks_begin_smaller(residual_init):
    kwargs = {"residual_init": residual_init, "activation": "swiglu"}
    standard, mup = deviations(**kwargs), deviations(**kwargs, mup_base_width=32)
    kernels = {name for name in standard if name.endswith("kernel")}
    assert {name.split("/")[-2] for name in kernels} == {"c_attn", "c_fc", "c_gate", "c_proj"}
    for name, std in standard.items():
        assert mup[name] == pytest.approx(std / 2 if name in kernels else std, rel=1e-6), name
    assert standard["wte"] == pytest.approx(0.02, rel=0.05)
    assert mup["h/mlp/c_fc/kernel"] == pytest.approx(0.01, rel=0.05)


def test_at_the_base_width_parameters_are_those_of_the_standard_parametrization(tiny):
    standard, mup = (
        jax.jit(lambda key, m=model: nn.unbox(boxed_params(m.config, key)))(jax.random.key(0))
        for model in (tiny(), tiny(mup_base_width=32, mup_base_head_dim=8))
    )
    jax.tree.map(np.testing.assert_array_equal, mup, standard)


def test_factors_of_scores_and_width():
    gpt2 = ModelConfig(vocab_size=61)
    assert gpt2.score_scale == 64**-0.5 and gpt2.mup_width_multiplier == 1
    # Wider by more heads: their width is the base's. Wider by wider heads: it is not.
    more = dataclasses.replace(gpt2, mup_base_width=256)
    assert more.score_scale == 64**-0.5 and more.mup_width_multiplier == 3
    wider = dataclasses.replace(more, num_heads=4, mup_base_head_dim=64)
    assert wider.score_scale == pytest.approx(8 / 192)
    equal = dataclasses.replace(more, mup_base_head_dim=64)
    assert equal.score_scale == more.score_scale
    assert dataclasses.replace(more, attention_scale=0.3).score_scale == 0.3


def test_it_adds_no_parameters_and_no_flops():
    gpt2 = ModelConfig(vocab_size=61)
    mup = dataclasses.replace(gpt2, mup_base_width=256)
    assert num_params(mup) == num_params(gpt2)
    assert flops_per_token(mup) == flops_per_token(gpt2)


def _as_standard(model: GPT2, params):
    """(a model without muP, parameters with which it is the same function)."""
    config = model.config
    standard = dataclasses.replace(
        config,
        mup_base_width=None,
        mup_base_head_dim=None,
        mup_input_alpha=1.0,
        mup_output_alpha=1.0,
        attention_scale=np.sqrt(4) / 8,
        tie_embeddings=False,
    )
    table = output_table(params)
    tables = {name: 3.0 * params[name] for name in ("wte", "wpe") if name in params}
    return model.clone(config=standard), params | tables | {"lm_head": 2.5 / 4 * table}


@functools.partial(jax.jit, static_argnums=0)
def _logits_and_losses(model: GPT2, params, ids):
    logits, _ = model.apply({"params": params}, ids, method=GPT2.logits)
    hidden, _ = model.apply({"params": params}, ids)
    weights = jnp.linspace(0, 1, ids.size, dtype=jnp.float32).reshape(ids.shape)
    arrays = (hidden, output_table(params), jnp.roll(ids, -1, axis=1), weights)
    losses = [
        cross_entropy(*arrays, model.config.vocab_size, chunk, "highest")
        for cross_entropy in (weighted_cross_entropy, plain_cross_entropy)
        for chunk in (0, 8)
    ]
    # The loss of a training step, whose logits a CPU computes in columns.
    trained = jax.value_and_grad(weighted_cross_entropy)(
        *arrays, model.config.vocab_size, 8, "highest"
    )[0]
    return logits, jnp.stack([*losses, trained])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_embeddings": False, "position": "rotary", "norm_position": "post"}],
)
@pytest.mark.parametrize("plain", [False, True])
def test_logits_and_every_loss_are_those_of_scaled_tables(
    tiny, noisy_params, tokens, changes, plain
):
    model = tiny(plain=plain, num_layers=1, **changes, **_MUP)
    params, ids = noisy_params(model), tokens(model)
    logits, losses = _logits_and_losses(model, params, ids)
    expected, expected_losses = _logits_and_losses(*_as_standard(model, params), ids)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    untouched, _ = _logits_and_losses(tiny(num_layers=1, **changes), params, ids)
    assert np.abs(logits - untouched).max() > 0.5


@pytest.fixture(scope="module")
def variant(tiny, noisy_params):
    model = tiny(**_MUP)
    return properties.make_variant(model, noisy_params(model))


@pytest.mark.slow
def test_it_has_the_properties_of_every_variant(variant):
    properties.assert_counts_are_those_of_the_formula(variant)
    properties.assert_cached_chunks_equal_the_whole(variant)
    properties.assert_packed_documents_are_as_alone(variant)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(variant):
    properties.assert_devices_give_the_same(variant)
