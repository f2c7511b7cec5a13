from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.config.model import POSITIONS
from gpt2_jax.model.build import boxed_params
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.params import unstack
from gpt2_jax.model.positions import (
    alibi_slopes,
    restarting_positions,
    rotate_half,
    unused_axes,
)
from gpt2_jax.model.relative import picked_scores, skewed_scores
from gpt2_jax.model.taps import VALUES
from tests.model import properties


@pytest.fixture(scope="module", params=POSITIONS)
def variant(request, tiny, noisy_params):
    model = tiny(position=request.param)
    return properties.make_variant(model, noisy_params(model))


def test_parameters_are_counted(variant):
    properties.assert_counts_are_those_of_the_formula(variant)
    position = variant.model.config.position
    assert ("wpe" in variant.params) == (position == "learned")
    assert ("relative" in variant.params["h"]["attn"]) == (position == "relative")


def test_cached_and_unrolled_equals_uncached_and_scanned(variant):
    properties.assert_cached_chunks_equal_the_whole(variant)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(variant):
    properties.assert_devices_give_the_same(variant)


def test_packed_documents_have_the_hidden_states_they_have_alone(variant):
    properties.assert_packed_documents_are_as_alone(variant)


@pytest.mark.parametrize("position", POSITIONS)
def test_only_a_model_without_positions_ignores_the_order_of_earlier_tokens(
    tiny, noisy_params, position
):
    # Of one layer: in a second, what a token has seen would tell how many came before it.
    model = tiny(position=position, num_layers=1)
    tokens = jnp.asarray([[1, 2, 3, 4, 5], [3, 2, 4, 1, 5]])
    run = jax.jit(lambda params: model.apply({"params": params}, tokens)[0])
    one, other = np.asarray(run(noisy_params(model)))[:, -1]
    assert (np.abs(one - other).max() < 1e-5) == (position == "none")


@pytest.mark.parametrize("position", [name for name in POSITIONS if name != "learned"])
def test_a_cache_beyond_the_trained_length_gives_what_the_whole_sequence_gives(
    tiny, noisy_params, position
):
    model = tiny(position=position, num_layers=1)
    T = 2 * model.config.context_length
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 61, (1, T)), jnp.int32)
    params = noisy_params(model)
    whole = jax.jit(lambda p: model.apply({"params": p}, tokens)[0])(params)
    decoder = model.clone(scanned=False)
    run = jax.jit(lambda p, t, cache: decoder.apply({"params": p}, t, cache))
    cache, chunks = init_cache(model.config, "float32", 1, T), []
    for start in range(0, T, 8):
        hidden, cache = run(unstack(params, 1), tokens[:, start : start + 8], cache)
        chunks.append(hidden)
    assert np.abs(np.concatenate(chunks, 1) - whole).max() < 2e-5


def test_slopes_of_alibi_are_those_of_its_authors():
    assert alibi_slopes(8) == [2.0**-n for n in range(1, 9)]
    # Of 16 heads, every second one from the first: 2^-0.5, 2^-1.5, ...
    between = [2.0 ** -(n + 0.5) for n in range(4)]
    assert alibi_slopes(12) == pytest.approx([*alibi_slopes(8), *between])
    assert alibi_slopes(1) == [2.0**-8]


def test_alibi_adds_its_slope_times_the_distance_to_the_scores(tiny, noisy_params, tokens):
    model = tiny(position="alibi", num_layers=1, attention="reference")
    params = noisy_params(model)
    params["h"]["attn"]["c_attn"] = jax.tree.map(jnp.zeros_like, params["h"]["attn"]["c_attn"])
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, mutable=[VALUES])[1])
    sown = run(params, tokens(model))
    probs_LxBxHxTxT = sown[VALUES]["h"]["attn"]["pattern"]
    logs_HxT = np.log(np.asarray(probs_LxBxHxTxT)[0, 0, :, -1])
    np.testing.assert_allclose(
        np.diff(logs_HxT, axis=-1), np.repeat(alibi_slopes(4), 15).reshape(4, 15), atol=1e-4
    )


@pytest.mark.parametrize("T", [5, 9, 14])
def test_skewing_gives_what_gathering_gives_and_so_do_their_gradients(T):
    rng = np.random.default_rng(T)
    q = jnp.asarray(rng.normal(size=(2, T, 3, 4)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(9, 3, 4)), jnp.float32)
    weights = np.tril(rng.normal(size=(2, 3, T, T)))

    def skewed(q, table):
        return skewed_scores(q, table)

    def picked(q, table):
        return picked_scores(q, table, jnp.arange(T)[None], T)

    def seen_and_gradients(scores):
        value, pull_back = jax.vjp(scores, q, table)
        return jnp.tril(value), *pull_back(jnp.asarray(weights, jnp.float32))

    one, other = (jax.jit(seen_and_gradients, static_argnums=0) for _ in range(2))
    for a, b in zip(one(skewed), other(picked), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    # A chunk in any slots of a longer cache.
    slots = jnp.asarray([[3], [0]]) + jnp.arange(2)
    chunk = picked_scores(q[:, :2], table, slots, 12)
    rows = np.clip(np.asarray(slots)[:, :, None] - np.arange(12), 0, 8)
    expected = np.einsum("bthk,btshk->bhts", q[:, :2], np.asarray(table)[rows])
    np.testing.assert_allclose(chunk, expected, atol=1e-5)


def test_relative_positions_are_those_of_the_formula(tiny, noisy_params, tokens):
    model = tiny(position="relative", num_layers=1, attention="reference", attention_scale=0.7)
    params, ids = noisy_params(model), tokens(model)
    run = jax.jit(lambda p: model.apply({"params": p}, ids, mutable=[VALUES])[1])
    probs = run(params)[VALUES]["h"]["attn"]["pattern"]
    layer = jax.tree.map(lambda leaf: np.float64(leaf[0]), params["h"])
    x = np.float64(params["wte"])[np.asarray(ids)]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * layer["ln_1"]["scale"] + layer["ln_1"]["bias"]
    c_attn = layer["attn"]["c_attn"]
    q, k, _ = np.moveaxis(np.einsum("btd,dnhk->btnhk", x, c_attn["kernel"]) + c_attn["bias"], 2, 0)
    T = ids.shape[1]
    distances = np.arange(T)[:, None] - np.arange(T)
    rows = layer["attn"]["relative"][np.maximum(distances, 0)]
    scores = 0.7 * (np.einsum("bthk,bshk->bhts", q, k) + np.einsum("bthk,tshk->bhts", q, rows))
    exps = np.where(distances >= 0, np.exp(scores), 0)
    np.testing.assert_allclose(probs[0], exps / exps.sum(-1, keepdims=True), atol=1e-5)


def test_a_table_of_distances_begins_with_the_deviation_of_its_paper():
    config = ModelConfig(2, 4, 128, 64, vocab_size=61, position="relative")
    table = jax.jit(lambda key: nn.unbox(boxed_params(config, key)))(jax.random.key(0))
    assert np.std(table["h"]["attn"]["relative"]) == pytest.approx(32**-0.5, rel=0.05)


@pytest.mark.parametrize("width", [2, 8])
def test_rotated_scores_depend_on_the_distance_alone(width):
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, width)), jnp.float32) for _ in range(2))

    def score(i, j):
        rotated = (rotate_half(x, jnp.asarray([[t]])) for x, t in ((q, i), (k, j)))
        return float(jnp.vdot(*rotated))

    for i, j in ((0, 0), (5, 2), (2, 5), (900, 890)):
        for shift in (1, 100):
            assert score(i + shift, j + shift) == pytest.approx(score(i, j), abs=2e-4)
    assert abs(score(5, 2) - score(2, 5)) > 1e-3 < abs(score(5, 2) - score(5, 3))


def test_a_rotation_is_that_of_the_formula_and_keeps_lengths_and_dtypes():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 3, 8))
    positions = np.array([[0, 1, 2, 3, 700], [4, 0, 1, 2, 0]])
    angles = positions[:, :, None, None] * 10_000.0 ** (-2 * np.arange(4) / 8)
    expected = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    rotated = np.asarray(rotate_half(jnp.asarray(x, jnp.float32), jnp.asarray(positions)))
    np.testing.assert_allclose(rotated[..., :4] + 1j * rotated[..., 4:], expected, atol=2e-4)
    np.testing.assert_array_equal(rotated[0, 0], x[0, 0].astype(np.float32))  # position 0
    assert rotate_half(jnp.asarray(x, jnp.bfloat16), jnp.asarray(positions)).dtype == jnp.bfloat16


def test_no_variant_leaves_anything_in_the_program_of_another(tiny, tokens, noisy_params):
    def program(position):
        model = tiny(position=position)
        params = noisy_params(model)
        return str(jax.make_jaxpr(lambda t: model.apply({"params": params}, t)[0])(tokens(model)))

    learned, rotary, none = map(program, ("learned", "rotary", "none"))
    assert " cos " in rotary and " cos " not in learned + none
    # Learned positions are one more lookup and one more addition than none.
    assert learned.count(" gather[") - none.count(" gather[") == 1
    assert rotary.count(" gather[") == none.count(" gather[")
    assert learned.count(" add ") - none.count(" add ") <= 2  # the lookup wraps negative ids too


def test_axes_of_other_encodings_are_unused(tiny):
    assert unused_axes(tiny().config) == {"distance", "lora_rank"}
    assert unused_axes(tiny(position="relative").config) == {"position", "lora_rank"}
    assert unused_axes(tiny(position="rotary").config) == {"position", "distance", "lora_rank"}


def test_positions_restart_at_every_segment():
    segments = jnp.asarray([[0, 0, 1, 1, 1, 2], [3, 3, 3, 3, 4, 3]])
    assert restarting_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 0]]
