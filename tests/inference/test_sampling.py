"""Sampling against a plain NumPy reading of its definition, and against expected frequencies."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.inference.sampling import SamplingOptions, kept_logits, sample

# Far enough apart that float32 and float64 agree on who crosses p.
_LOGITS = np.array([0.5, 2.0, -1.0, 1.0, 2.0, 0.0, -3.0, 1.5], np.float32)
_DRAWS = 20_000

# One program for each set of options, as the decoder has it; dispatched one by one, the operations
# take longer to compile.
_sample = jax.jit(sample, static_argnames="options")


def _expected(logits: np.ndarray, options: SamplingOptions) -> np.ndarray:
    """The distribution [V] the options describe, one token at a time in float64."""
    scaled = [float(x) / options.temperature for x in logits]
    # Most probable first; of equals, the lowest id.
    order = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))
    order = order[: options.top_k or len(order)]
    weights = [math.exp(scaled[i] - scaled[order[0]]) for i in order]
    total = sum(weights)
    kept: dict[int, float] = {}
    reached = 0.0
    for i, weight in zip(order, weights, strict=True):
        if kept and options.top_p < 1 and reached >= options.top_p:
            break
        kept[i] = weight
        reached += weight / total
    result = np.zeros(len(logits))
    for i, weight in kept.items():
        result[i] = weight / sum(kept.values())
    return result


def _kept(logits: np.ndarray, options: SamplingOptions) -> np.ndarray:
    """The distribution [V] of `kept_logits`."""
    kept, ids = kept_logits(jnp.asarray(logits)[None], options)
    result = np.zeros(len(logits))
    result[np.asarray(ids[0])] = np.asarray(jax.nn.softmax(kept[0]))
    return result


@functools.cache
def _frequencies(options: SamplingOptions, seed: int = 0) -> np.ndarray:
    """Returns how often each token of _LOGITS is drawn, [V], in _DRAWS rows of one call."""
    rows = jnp.broadcast_to(jnp.asarray(_LOGITS), (_DRAWS, len(_LOGITS)))
    tokens = np.asarray(_sample(rows, jax.random.key(seed), options))
    assert tokens.dtype == np.int32
    return np.bincount(tokens, minlength=len(_LOGITS)) / _DRAWS


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.5),
        SamplingOptions(temperature=2.0),
        SamplingOptions(top_k=3),
        SamplingOptions(top_p=0.6),
        SamplingOptions(temperature=3.0, top_p=0.9),
        SamplingOptions(top_k=4, top_p=0.8),
        SamplingOptions(temperature=1.7, top_k=6, top_p=0.95),
        SamplingOptions(top_k=1000),
    ],
    ids=str,
)
def test_draws_follow_the_distribution_asked_for(options: SamplingOptions) -> None:
    expected, drawn = _expected(_LOGITS, options), _frequencies(options)
    assert not drawn[expected == 0].any()
    # Pearson's chi-square, over what it exceeds in one of 10^5 runs (normal approximation); the
    # seed is fixed, so that this either holds or does not.
    kept = expected > 0
    chi_square = _DRAWS * np.sum((drawn - expected)[kept] ** 2 / expected[kept])
    freedom = max(int(kept.sum()) - 1, 1)
    assert chi_square < freedom + 4.3 * math.sqrt(2 * freedom) + 10


def test_every_option_changes_what_is_drawn() -> None:
    plain = _frequencies(SamplingOptions())
    for options in (
        SamplingOptions(temperature=0.5),
        SamplingOptions(top_k=3),
        SamplingOptions(top_p=0.6),
        SamplingOptions(temperature=0.0),
    ):
        assert np.abs(_frequencies(options) - plain).max() > 0.05, options


def test_temperature_zero_is_the_argmax_and_ties_go_to_the_lowest_id() -> None:
    for options in (
        SamplingOptions(temperature=0.0),
        SamplingOptions(temperature=0.0, top_k=3, top_p=0.5),
    ):
        assert _frequencies(options)[1] == 1.0  # tokens 1 and 4 tie
    rows = np.random.default_rng(0).normal(size=(64, 11)).astype(np.float32)
    greedy = sample(jnp.asarray(rows), jax.random.key(0), SamplingOptions(temperature=0.0))
    np.testing.assert_array_equal(greedy, rows.argmax(-1))


def test_a_small_temperature_comes_close_to_the_argmax_without_overflow() -> None:
    drawn = _frequencies(SamplingOptions(temperature=1e-4))
    assert drawn[1] + drawn[4] == 1.0
    assert 0.45 < drawn[1] < 0.55


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 9, 50])
def test_top_k_keeps_exactly_k_even_of_equals(k: int) -> None:
    for logits in (_LOGITS, np.zeros(8, np.float32)):
        kept = np.flatnonzero(_kept(logits, SamplingOptions(top_k=k)))
        assert len(kept) == min(k, 8)
        order = sorted(range(8), key=lambda i: (-logits[i], i))
        assert sorted(order[:k]) == kept.tolist()


def test_top_k_of_one_is_greedy() -> None:
    assert _frequencies(SamplingOptions(top_k=1, temperature=5.0))[1] == 1.0


def _of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities)).astype(np.float32)


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.0, 1), (0.1, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)],
)
def test_top_p_keeps_the_token_that_crosses_p(p: float, kept: int) -> None:
    probs = _of(0.5, 0.3, 0.15, 0.05)
    assert np.count_nonzero(_kept(probs, SamplingOptions(top_p=p))) == kept


def test_top_p_counts_after_temperature() -> None:
    # At temperature 2: 0.379, 0.294, 0.207, 0.120 (square roots, renormalized).
    logits = _of(0.5, 0.3, 0.15, 0.05)
    assert np.count_nonzero(_kept(logits, SamplingOptions(temperature=2.0, top_p=0.6))) == 2
    assert np.count_nonzero(_kept(logits, SamplingOptions(temperature=2.0, top_p=0.7))) == 3
    assert np.count_nonzero(_kept(logits, SamplingOptions(temperature=1.0, top_p=0.7))) == 2
    assert np.count_nonzero(_kept(logits, SamplingOptions(temperature=0.25, top_p=0.7))) == 1


def test_top_p_counts_after_top_k_renormalized() -> None:
    # Of the top two, 0.5 and 0.3, the first holds 0.625: enough for 0.6, where 0.5 is not.
    logits = _of(0.5, 0.3, 0.15, 0.05)
    assert np.count_nonzero(_kept(logits, SamplingOptions(top_k=2, top_p=0.6))) == 1
    assert np.count_nonzero(_kept(logits, SamplingOptions(top_p=0.6))) == 2
    assert np.count_nonzero(_kept(logits, SamplingOptions(top_k=2, top_p=0.65))) == 2


def test_top_p_of_zero_is_greedy_and_of_one_keeps_the_rarest() -> None:
    assert _frequencies(SamplingOptions(top_p=0.0))[1] == 1.0
    # Sums of float32 probabilities reach 1 before the rarest token comes.
    logits = np.concatenate([np.zeros(1000), [-40.0]]).astype(np.float32)
    kept, _ = kept_logits(jnp.asarray(logits)[None], SamplingOptions(top_p=1.0, top_k=1001))
    assert np.isfinite(kept).all()


def test_rows_draw_independently_and_keys_decide() -> None:
    rows = jnp.zeros((512, 97))
    for options in (SamplingOptions(), SamplingOptions(top_k=50)):
        once, again = (_sample(rows, jax.random.key(3), options) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert len(set(np.asarray(once).tolist())) > 20
        assert (np.asarray(_sample(rows, jax.random.key(4), options)) != np.asarray(once)).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 (greedy) or from 1e-30 to 1e30, not -0.1"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": 1e-40}, "temperature must be"),
        ({"temperature": 1e40}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"top_k": -1}, "top_k must be 0 (all tokens) or more, not -1"),
        ({"top_p": -0.1}, "top_p must be between 0 and 1, not -0.1"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1, not 1.1"),
        ({"top_p": math.nan}, "top_p must be"),
        ({"top_p": math.inf}, "top_p must be"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as error:
        SamplingOptions(**values)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_at_the_ends_of_their_ranges_are_taken() -> None:
    for values in ((0.0, 0, 0.0), (1e30, 10**9, 1.0)):
        options = SamplingOptions(*values)
        assert (options.temperature, options.top_k, options.top_p) == values


# One compiled shape: eager calls would take most of the time.
_V = 12


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    # Integers, so that ties are frequent.
    logits=st.lists(st.integers(-6, 6), min_size=_V, max_size=_V),
    temperature=st.sampled_from([0.25, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, _V, _V + 5]),
    # Not a sum that a few equal tokens reach exactly, where rounding decides.
    top_p=st.sampled_from([0.0, 0.1234, 0.4567, 0.7123, 0.9871, 1.0]),
)
def test_what_is_kept_is_what_plain_numpy_keeps(
    logits: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    options = SamplingOptions(temperature, top_k, top_p)
    array = np.array(logits, np.float32)
    expected, got = _expected(array, options), _kept(array, options)
    np.testing.assert_array_equal(got > 0, expected > 0)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)
    token = int(sample(jnp.asarray(array)[None], jax.random.key(0), options)[0])
    assert expected[token] > 0
