"""Tests that mixtures draw windows in exact proportions, purely by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.data.loader import TrainLoader
from gpt2_jax.data.mixture import MixtureLoader
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError

T, B = 8, 4
LENGTHS = (1000, 300, 90)


def make_loader(number, seed=3, batch_size=B):
    # Every token says which set it is of.
    tokens = np.arange(LENGTHS[number], dtype=np.uint16) + 10_000 * number
    return TrainLoader(
        TokenArray([tokens]),
        batch_size=batch_size,
        context_length=T,
        seed=seed,
        folder=f"set {number}",
    )


def make_mixture(weights=(5, 3, 2), seed=3):
    loaders = [make_loader(number, seed) for number in range(len(weights))]
    return MixtureLoader(loaders, weights)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_weights_are_exact_and_spread_evenly(weights):
    mixture = MixtureLoader([make_loader(0)] * len(weights), weights)
    total = sum(weights)
    drawn = [mixture.draw(position) for position in range(3 * total)]
    counts = np.cumsum([[which == i for i in range(len(weights))] for which, _ in drawn], axis=0)
    assert counts[total - 1].tolist() == weights
    assert counts[-1].tolist() == [3 * weight for weight in weights]
    expected = np.arange(1, 3 * total + 1)[:, None] * np.array(weights) / total
    # A set's own windows are at most half a distance off; with n sets, the others' add up.
    assert np.abs(counts - expected).max() <= max(len(weights) / 2, 0.5)
    for i in range(len(weights)):
        assert [index for which, index in drawn if which == i] == list(range(counts[-1, i]))


def test_batches_are_pure_in_seed_and_step_and_any_rows_are_the_rows_of_the_batch():
    steps = [40, 0, 7, 100_000_000]
    forwards = {step: make_mixture().rows(step, range(B)) for step in steps}
    one = make_mixture()
    for step in reversed(steps):
        assert np.array_equal(one.rows(step, range(B)).tokens, forwards[step].tokens)
    assert np.array_equal(one.rows(7, [2, 0]).tokens, forwards[7].tokens[[2, 0]])
    assert not np.array_equal(make_mixture(seed=4).rows(7, range(B)).inputs, forwards[7].inputs)
    assert not np.array_equal(forwards[0].inputs, forwards[7].inputs)


def test_each_set_goes_through_its_own_epochs():
    mixture = make_mixture()
    inputs = np.concatenate([mixture.rows(step, range(B)).inputs for step in range(200)])
    for number in range(3):
        mine = inputs[inputs[:, 0] // 10_000 == number]
        alone = make_loader(number, batch_size=len(mine)).rows(0, range(len(mine))).inputs
        assert np.array_equal(mine, alone)
        epoch = mine[: make_loader(number).windows_per_epoch, 0]
        assert len(set(epoch.tolist())) == len(epoch), "a window came twice in an epoch"


def test_origins_say_where_every_row_was_read():
    mixture = make_mixture()
    for step in (0, 7, 100_000_000):
        firsts = mixture.rows(step, range(B)).inputs[:, 0].tolist()
        expected = [(f"set {first // 10_000}", first % 10_000) for first in firsts]
        assert mixture.origins(step) == expected


def test_a_mixture_of_one_is_the_set_itself():
    mixture = MixtureLoader([make_loader(0)], [1])
    for step in (0, 50):
        mine, other = (each.rows(step, range(B)).tokens for each in (mixture, make_loader(0)))
        assert np.array_equal(mine, other) and mine.dtype == other.dtype


def test_loaders_of_other_sizes_are_refused():
    with pytest.raises(UserError, match="the same batch size"):
        MixtureLoader([make_loader(0), make_loader(1, batch_size=2)], [1, 1])
