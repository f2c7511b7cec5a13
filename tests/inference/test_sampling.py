"""Sampling against expected frequencies: each row by its own options and its own noise."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.inference.penalties import History
from gpt2_jax.inference.sampling import (
    MOST_ENDS,
    SamplingOptions,
    Settings,
    draw,
    key_of_choice,
    settings_of,
)
from tests.inference.plain_sampling import expected as _expected

_LOGITS = np.array([0.5, 2.0, -1.0, 1.0, 2.0, 0.0, -3.0, 1.5], np.float32)
_DRAWS = 20_000

# Options are data, so that every number of rows is one program.
_draw = jax.jit(draw)
_keys = jax.jit(jax.vmap(key_of_choice, in_axes=(None, 0)))


def _settings(options: SamplingOptions, rows: int, seed: int = 0) -> Settings:
    """Returns equal settings for rows that are choices 0, 1, ... of one seed."""
    one = settings_of(options, (), seed)
    many = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (rows, *leaf.shape)), one)
    return many._replace(keys_Bx2=_keys(one.keys_Bx2, jnp.arange(rows, dtype=jnp.uint32)))


def _sampled(logits: Any, settings: Settings, drawn: int | np.ndarray = 0) -> np.ndarray:
    B, V = logits.shape
    zeros = np.zeros(B, np.int32)
    history = History(zeros[:, None], zeros, np.zeros((B, V), np.int32), np.zeros((B, V), bool))
    tokens = np.asarray(_draw(logits, settings, history, zeros + np.int32(drawn)))
    assert tokens.dtype == np.int32
    return tokens


@functools.cache
def _frequencies(options: SamplingOptions, seed: int = 0) -> np.ndarray:
    """Returns how often each token of _LOGITS is drawn, [V], in _DRAWS rows of one call."""
    rows = np.broadcast_to(_LOGITS, (_DRAWS, len(_LOGITS)))
    tokens = _sampled(rows, _settings(options, _DRAWS, seed))
    return np.bincount(tokens, minlength=len(_LOGITS)) / _DRAWS


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.5),
        SamplingOptions(temperature=2.0),
        SamplingOptions(top_k=3),
        SamplingOptions(top_p=0.6),
        SamplingOptions(temperature=1.9, top_p=0.9),
        SamplingOptions(top_k=4, top_p=0.8),
        SamplingOptions(temperature=1.7, top_k=6, top_p=0.95),
        SamplingOptions(top_k=1000),
        SamplingOptions(min_p=0.3),
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
    greedy = _sampled(rows, _settings(SamplingOptions(temperature=0.0), 64))
    np.testing.assert_array_equal(greedy, rows.argmax(-1))


def test_a_small_temperature_comes_close_to_the_argmax_without_overflow() -> None:
    drawn = _frequencies(SamplingOptions(temperature=1e-4))
    assert drawn[1] + drawn[4] == 1.0
    assert 0.45 < drawn[1] < 0.55


def test_top_k_of_one_is_greedy() -> None:
    assert _frequencies(SamplingOptions(top_k=1, temperature=2.0))[1] == 1.0


def test_top_p_of_zero_is_greedy() -> None:
    assert _frequencies(SamplingOptions(top_p=0.0))[1] == 1.0


def test_rows_draw_independently_and_seeds_decide() -> None:
    rows = np.zeros((512, 97), np.float32)
    for options in (SamplingOptions(), SamplingOptions(top_k=50)):
        once, again = (_sampled(rows, _settings(options, 512, 3)) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert len(set(once.tolist())) > 20
        for other in (4, 3 + 2**32, 3 - 2**63):
            assert (_sampled(rows, _settings(options, 512, other)) != once).mean() > 0.5
        assert (_sampled(rows, _settings(options, 512, 3), drawn=1) != once).mean() > 0.5


def test_a_row_draws_the_same_in_any_place_beside_any_others() -> None:
    """What a row draws follows from its logits, options, key and count alone."""
    rng = np.random.default_rng(0)
    options = [
        SamplingOptions(),
        SamplingOptions(0.7, top_k=5, logit_bias={3: 2.0}),
        SamplingOptions(1.3, top_p=0.8, min_p=0.05),
        SamplingOptions(temperature=0),
    ]
    logits = rng.normal(0, 2, (4, 97)).astype(np.float32)
    counts = np.array([0, 5, 9, 1], np.int32)
    alone = [settings_of(o, (), 11 * i) for i, o in enumerate(options)]

    def drawn(order: list[int]) -> list[int]:
        settings = jax.tree.map(lambda *leaves: np.stack(leaves), *(alone[i] for i in order))
        return _sampled(logits[order], settings, counts[order]).tolist()

    together = drawn([0, 1, 2, 3])
    assert drawn([3, 1, 0, 2]) == [together[i] for i in (3, 1, 0, 2)]
    for i in range(4):
        assert drawn([i]) == [together[i]]
        assert drawn([2, i, i]) == [together[2], together[i], together[i]]


def test_at_most_so_many_ids_end_a_text() -> None:
    ends = settings_of(SamplingOptions(stop_token_ids=[5, 3]), {7, 3}, 0).ends_BxE
    assert ends.tolist() == [3, 5, 7, *[-1] * (MOST_ENDS - 3)]
    ends = settings_of(SamplingOptions(stop_token_ids=[5], ignore_eos=True), {7}, 0).ends_BxE
    assert ends.tolist() == [5, *[-1] * (MOST_ENDS - 1)]
    with pytest.raises(UserError, match="at most 15 ids beside the model's own, not 16"):
        settings_of(SamplingOptions(stop_token_ids=range(16)), {16}, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature must be between 0 and 2, not -0.1"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": 2.1}, "temperature must be between 0 and 2, not 2.1"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"top_k": -2}, "top_k must be at least -1, not -2"),
        ({"top_p": -0.1}, "top_p must be between 0 and 1, not -0.1"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1, not 1.1"),
        ({"top_p": math.nan}, "top_p must be"),
        ({"top_p": math.inf}, "top_p must be"),
        ({"min_p": 1.5}, "min_p must be between 0 and 1, not 1.5"),
        ({"presence_penalty": 2.5}, "presence_penalty must be between -2 and 2, not 2.5"),
        ({"frequency_penalty": -3}, "frequency_penalty must be between -2 and 2, not -3"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0, not 0"),
        ({"repetition_penalty": 11}, "repetition_penalty must be between 0 and 10, not 11"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be at least 0, not -1"),
        ({"logit_bias": {1: 101}}, "logit_bias[1] must be between -100 and 100, not 101"),
        ({"logit_bias": {-1: 1}}, "a token of logit_bias must be at least 0, not -1"),
        ({"logit_bias": {"1": 1}}, "a token of logit_bias must be an integer"),
        ({"logit_bias": [1, 2]}, "logit_bias must be a mapping such as {50256: -100}"),
        ({"logit_bias": dict.fromkeys(range(257), 1.0)}, "at most 256 ids, not 257"),
        ({"stop_token_ids": 5}, "stop_token_ids must be a list of token ids, not 5"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0] must be an integer"),
        ({"ignore_eos": "yes"}, "ignore_eos must be True or False"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        SamplingOptions(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_options_at_the_ends_of_their_ranges_are_taken() -> None:
    for values in ((0.0, 0, 0.0), (2.0, 10**9, 1.0)):
        options = SamplingOptions(*values)
        assert (options.temperature, options.top_k, options.top_p) == values
    # Further names of what 0 says.
    assert SamplingOptions(temperature=1e-40, top_k=-1) == SamplingOptions(temperature=0, top_k=0)


def test_options_have_a_hash_whatever_their_biases_came_as() -> None:
    same = [SamplingOptions(logit_bias=bias) for bias in ({2: 1, 1: 3}, ((1, 3.0), (2, 1.0)))]
    assert len({*same}) == 1
    assert dict(same[0].logit_bias) == {1: 3.0, 2: 1.0}
