"""Every knob of the model beside every other: counts, the cache, devices and packed documents.

Six models cover all pairs of values of two-valued knobs; the slow tests take each pair by itself.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig, from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.model import attention_kernels
from gpt2_jax.model.build import abstract_params, boxed_params
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.training.optimizer import decay_mask
from tests.model import properties

# GPT-2's value of each knob first.
_TWO_VALUED = {
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "bias": (True, False),
    "qk_norm": ("none", "rms"),
    "attention_scale": (None, 0.3),
    "attention_window": (0, 6),
    "x0_residual": (False, True),
    "value_residual": (False, True),
    "tie_embeddings": (True, False),
}
_MANY_VALUED = {
    "position": ("learned", "rotary", "alibi", "none", "relative", "relative"),
    "activation": ("gelu_new", "swiglu", "relu2", "relu2", "swiglu", "swiglu"),
}


def _covering() -> list[dict]:
    """Returns six variants in which two knobs of two values take all four pairs of values.

    Knobs have different sets of three of the variants 1 to 5 in which they do not have GPT-2's
    value. Any two such sets meet, differ both ways, and leave out variant 0.
    """
    sets = dict(zip(_TWO_VALUED, itertools.combinations(range(1, 6), 3), strict=False))
    return [
        {knob: values[row in sets[knob]] for knob, values in _TWO_VALUED.items()}
        | {knob: values[row] for knob, values in _MANY_VALUED.items()}
        for row in range(6)
    ]


_OTHERS = [(knob, values[1]) for knob, values in _TWO_VALUED.items()] + [
    *(("position", name) for name in ("rotary", "alibi", "relative", "none")),
    *(("activation", name) for name in ("relu2", "swiglu")),
]
_PAIRS = [
    dict(pair) for pair in itertools.combinations(_OTHERS, 2) if len({knob for knob, _ in pair}) > 1
]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _program(model, params, ids, method):
    return model.apply({"params": params}, ids, method=method)[0]


def run(model, params, ids, method="__call__"):
    """The hidden states, or with the method `logits` the logits."""
    return np.asarray(_program(model, params, ids, method))


def test_the_variants_cover_all_pairs_of_values():
    variants = _covering()
    for one, other in itertools.combinations(_TWO_VALUED, 2):
        assert len({(variant[one], variant[other]) for variant in variants}) == 4, (one, other)


@pytest.fixture(scope="module", params=range(6))
def variant(request, tiny, noisy_params):
    model = tiny(**_covering()[request.param])
    return properties.make_variant(model, noisy_params(model))


def test_parameters_are_counted(variant):
    properties.assert_counts_are_those_of_the_formula(variant)


def test_packed_documents_have_the_hidden_states_they_have_alone(variant):
    properties.assert_packed_documents_are_as_alone(variant)


@pytest.mark.parametrize(
    "row", [1, 4, *(pytest.param(row, marks=pytest.mark.slow) for row in (0, 2, 3, 5))]
)
def test_cached_and_unrolled_equals_uncached_and_scanned(tiny, noisy_params, row):
    model = tiny(**_covering()[row])
    properties.assert_cached_chunks_equal_the_whole(
        properties.make_variant(model, noisy_params(model))
    )


@pytest.mark.slow
@pytest.mark.parametrize("row", range(6))
def test_eight_devices_give_what_one_gives(tiny, noisy_params, row):
    model = tiny(**_covering()[row])
    variant = properties.make_variant(model, noisy_params(model))
    properties.assert_devices_give_the_same(variant)


@pytest.mark.slow
@pytest.mark.parametrize("changes", _PAIRS, ids=str)
def test_every_pair_of_values_has_every_property(tiny, noisy_params, changes):
    model = tiny(**changes)
    variant = properties.make_variant(model, noisy_params(model))
    properties.assert_counts_are_those_of_the_formula(variant)
    properties.assert_cached_chunks_equal_the_whole(variant)
    properties.assert_packed_documents_are_as_alone(variant)
    properties.assert_devices_give_the_same(variant)


def test_no_variant_has_a_bias_without_biases_and_norms_never_decay():
    config = ModelConfig(2, 4, 32, 16, vocab_size=61, bias=False, qk_norm="rms")
    params = abstract_params(config)
    mask = decay_mask(params)
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/"): decays
        for path, decays in jax.tree_util.tree_leaves_with_path(mask)
    }
    assert not any("bias" in name for name in names)
    assert {"h/attn/ln_q/scale", "h/attn/ln_k/scale"} <= set(names)
    assert {name for name, decays in names.items() if not decays} == {
        name for name in names if name.endswith("scale")
    }


def test_post_norms_end_every_block_and_no_other_norm_follows(tiny, noisy_params, tokens):
    model = tiny(norm_position="post", num_layers=1)
    params, ids = noisy_params(model), tokens(model)
    assert "ln_f" not in params
    hidden = run(model, params, ids)
    last = jax.tree.map(lambda leaf: np.asarray(leaf[0]), params["h"]["ln_2"])
    normalized = (hidden - last["bias"]) / last["scale"]
    assert np.abs(normalized.mean(-1)).max() < 1e-4
    assert np.abs(normalized.var(-1) - 1).max() < 1e-3


def test_swiglu_is_its_formula_and_has_the_parameters_of_gpt2(tiny, noisy_params):
    from gpt2_jax.model.gpt2 import MLP

    model = tiny(activation="swiglu")
    p = jax.tree.map(lambda leaf: leaf[0], noisy_params(model)["h"]["mlp"])
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    y = jax.jit(MLP(model.config, model.compute, train=False).apply)({"params": p}, x)
    gate, up = (x @ p[name]["kernel"] + p[name]["bias"] for name in ("c_gate", "c_fc"))
    expected = (gate / (1 + np.exp(-gate)) * up) @ p["c_proj"]["kernel"] + p["c_proj"]["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)

    for width in (256, 768, 1600):
        plain = ModelConfig(1, 1, width, 16, vocab_size=61)
        gated = dataclasses.replace(plain, activation="swiglu")
        assert gated.mlp_width % 8 == 0
        # Half a multiple of 8 is 4 columns of three matrices.
        assert abs(num_params(gated) - num_params(plain)) <= 4 * (3 * width + 2)
        difference = flops_per_token(gated) - flops_per_token(plain)
        assert difference == 6 * (num_params(gated) - num_params(plain))
    assert dataclasses.replace(plain, activation="swiglu", mlp_dim=100).mlp_width == 100


@pytest.mark.parametrize(("name", "std"), [("scaled", 0.01), ("plain", 0.02), ("zero", 0.0)])
def test_residual_projections_begin_with_their_deviation(name, std):
    config = ModelConfig(2, 2, 64, 16, vocab_size=61, residual_init=name)

    @jax.jit
    def kernels(key):  # what is not returned is not compiled
        layer = nn.unbox(boxed_params(config, key))["h"]
        linears = layer["attn"]["c_proj"], layer["mlp"]["c_proj"], layer["attn"]["c_attn"]
        return [linear["kernel"] for linear in linears]

    for kernel, expected in zip(kernels(jax.random.key(0)), (std, std, 0.02), strict=True):
        assert np.std(kernel) == pytest.approx(expected, rel=0.05)


def test_qk_norm_ignores_the_size_of_queries_and_keys(tiny, noisy_params, tokens):
    model = tiny(qk_norm="rms", bias=False, layer_norm_epsilon=0.0)
    params, ids = noisy_params(model), tokens(model)
    louder = jnp.asarray([3.0, 0.5, 1.0])[:, None, None]  # queries, keys, values
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * louder if any(e.key == "c_attn" for e in path) else leaf, params
    )
    one, other = (run(model, p, ids) for p in (params, scaled))
    assert np.abs(one - other).max() < 1e-4


@pytest.mark.slow
def test_residuals_of_early_layers_begin_as_gpt2_and_mix_by_their_formulas(tiny, tokens):
    plain, mixed = tiny(), tiny(x0_residual=True, value_residual=True)
    ids = tokens(plain)

    def hidden(model, params):
        return run(model, params, ids)

    init = jax.jit(lambda key: nn.unbox(boxed_params(mixed.config, key)))
    params = init(jax.random.key(0))
    assert params["h"]["x0_mix"]["of_x"].shape == (2,)
    attention = {name: leaf for name, leaf in params["h"]["attn"].items() if name != "value_mix"}
    layers = {name: leaf for name, leaf in params["h"].items() if name != "x0_mix"}
    of_plain = params | {"h": layers | {"attn": attention}}
    np.testing.assert_allclose(hidden(mixed, params), hidden(plain, of_plain), atol=1e-6)

    # Layers that copy the first layer's values and the embeddings alone.
    zeros, ones = jnp.zeros(2), jnp.ones(2)
    params["h"]["x0_mix"] = {"of_x": jnp.asarray([1.0, 0.0]), "of_y": jnp.asarray([0.0, 1.0])}
    params["h"]["attn"]["value_mix"] = {"of_x": zeros, "of_y": ones}
    # The second layer is then the only one that reaches the output, with the first layer's values.
    c_attn = jax.tree.map(np.array, params["h"]["attn"]["c_attn"])
    c_attn["kernel"][1][:, 2] = 1e3
    loud = params | {"h": params["h"] | {"attn": params["h"]["attn"] | {"c_attn": c_attn}}}
    np.testing.assert_array_equal(hidden(mixed, loud), hidden(mixed, params))
    mlp = jax.tree.map(np.array, params["h"]["mlp"])
    mlp["c_proj"]["kernel"][0] = 1e3
    loud = params | {"h": params["h"] | {"mlp": mlp}}
    np.testing.assert_array_equal(hidden(mixed, loud), hidden(mixed, params))


@pytest.mark.slow
def test_attention_scale_replaces_that_of_the_head_width(tiny, noisy_params, tokens):
    params, ids = noisy_params(tiny(num_layers=1)), tokens(tiny())
    hidden = {
        scale: run(tiny(attention_scale=scale, num_layers=1), params, ids)
        for scale in (None, 8**-0.5, 0.9)
    }
    np.testing.assert_array_equal(hidden[None], hidden[8**-0.5])
    assert np.abs(hidden[None] - hidden[0.9]).max() > 0.05
    with pytest.raises(UserError, match=r"model\.attention_scale=0\.9 needs"):
        from_dict({"model": {"attention_scale": 0.9, "scale_attn_weights": False}})


def test_a_window_hides_what_lies_before_it(tiny, noisy_params, tokens):
    model = tiny(attention_window=5, num_layers=1)
    params, ids = noisy_params(model), tokens(model, rows=1)
    other = ids.at[0, 2].set((ids[0, 2] + 1) % 61)
    one, two = (run(model, params, t)[0] for t in (ids, other))
    assert np.flatnonzero((one != two).any(-1)).tolist() == [2, 3, 4, 5, 6]
    whole, none = (run(tiny(attention_window=w, num_layers=1), params, ids) for w in (16, 0))
    np.testing.assert_allclose(whole, none, rtol=1e-6, atol=1e-6)


def test_a_window_counts_the_scores_inside_it():
    config = ModelConfig(2, 4, 32, 16, vocab_size=61)
    flops = {
        window: flops_per_token(dataclasses.replace(config, attention_window=window))
        for window in (0, 4, 16, 100)
    }
    assert flops[0] == flops[16] == flops[100]
    # Of 16 x 16 / 2 scores, 4 (32 - 4) / 2 lie inside; six FLOPs and two products each, for D.
    assert flops[0] - flops[4] == 12 * 2 * 32 * (128 - 56) / 16


def test_relative_positions_count_a_third_product_of_all_pairs_and_no_more():
    none = ModelConfig(2, 4, 32, 16, vocab_size=61, position="none")
    for window in (0, 4):
        before = dataclasses.replace(none, attention_window=window)
        after = dataclasses.replace(before, position="relative")
        scores = flops_per_token(before) - 6 * num_params(before)
        assert flops_per_token(after) - flops_per_token(before) == scores / 2
    assert num_params(after) - num_params(before) == 2 * 16 * 32


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(
            ({"position": name}, f"a model.position that adds nothing to scores, unlike {name}")
            for name in ("alibi", "relative")
        ),
        ({"attention_window": 4}, "model.attention_window=0"),
    ],
)
def test_fused_kernels_say_which_knobs_they_do_not_take(tiny, monkeypatch, changes, reason):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    model = tiny(context_length=128, **changes)
    assert attention_kernels.choose(model.config, model.compute) == "reference"
    assert f"splash needs {reason}" in attention_kernels.explain(model.config, model.compute)
    for capability in (None, 9.0):
        chosen = attention_kernels.choose_on(
            model.config, dataclasses.replace(model.compute, dtype="bfloat16"), capability
        )
        assert chosen == "reference"
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    on_cpu = "cpu" if "attention_window" in changes else "reference"
    assert attention_kernels.choose(model.config, model.compute) == on_cpu


def test_capped_logits_are_those_of_the_formula(tiny, noisy_params, tokens):
    params, ids = noisy_params(tiny(num_layers=1)), tokens(tiny())
    plain, capped = (
        run(tiny(logit_softcap=cap, num_layers=1), params, ids, "logits") for cap in (0.0, 1.5)
    )
    assert np.abs(plain).max() > 2
    np.testing.assert_allclose(capped, 1.5 * np.tanh(plain / 1.5), rtol=1e-5, atol=1e-6)
