from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config.model import POSITIONS
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.params import unstack
from gpt2_jax.model.positions import (
    alibi_slopes,
    restarting_positions,
    rotate_half,
    unused_axes,
)
from tests.model import properties


@pytest.fixture(scope="module", params=POSITIONS)
def variant(request, tiny, noisy_params):
    model = tiny(position=request.param)
    return properties.make_variant(model, noisy_params(model))


def test_parameters_are_counted(variant):
    properties.assert_counts_are_those_of_the_formula(variant)
    assert ("wpe" in variant.params) == (variant.model.config.position == "learned")


def test_cached_and_unrolled_equals_uncached_and_scanned(variant):
    properties.assert_cached_chunks_equal_the_whole(variant)


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
    _, sown = model.apply({"params": params}, tokens(model), mutable=["intermediates"])
    (probs_LxBxHxTxT,) = sown["intermediates"]["h"]["attn"]["attention"]
    logs_HxT = np.log(np.asarray(probs_LxBxHxTxT)[0, 0, :, -1])
    np.testing.assert_allclose(
        np.diff(logs_HxT, axis=-1), np.repeat(alibi_slopes(4), 15).reshape(4, 15), atol=1e-4
    )


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
    assert unused_axes(tiny().config) == frozenset()
    assert unused_axes(tiny(position="rotary").config) == {"position"}


def test_positions_restart_at_every_segment():
    segments = jnp.asarray([[0, 0, 1, 1, 1, 2], [3, 3, 3, 3, 4, 3]])
    assert restarting_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 0]]
