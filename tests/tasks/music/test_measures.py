"""Tests key, meter, and the comparison with chance."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_jax.tasks.music import measures
from gpt2_jax.tasks.music.notes import Note

SCALE = [0, 2, 4, 5, 7, 9, 11]


def _tune(tonic: int, degrees: list[int]) -> list[Note]:
    return [Note(4 * i, 60 + tonic + step, 4) for i, step in enumerate(degrees)]


@pytest.mark.parametrize("tonic", range(12))
def test_a_scale_around_its_tonic_is_in_its_key(tonic):
    name = measures.key_name(measures.key_scores(_tune(tonic, [*SCALE, 0, 4, 7, 0])))
    assert name == f"{measures._NAMES[tonic]} major"


def test_minor_is_told_from_major():
    scores = measures.key_scores(_tune(9, [0, 2, 3, 5, 7, 8, 11, 0, 3, 7, 0]))
    assert measures.key_name(scores) == "A minor"
    assert np.abs(scores).max() <= 1


def test_agreement_is_1_in_the_same_key_and_less_elsewhere():
    here, there = (measures.key_scores(_tune(tonic, [*SCALE, 0])) for tonic in (0, 6))
    assert measures.key_agreement(here, here) == pytest.approx(1)
    assert measures.key_agreement(here, there) < 0
    assert measures.key_agreement(here, measures.key_scores([])) == 0


def test_on_beat_counts_onsets():
    assert measures.on_beat([Note(0, 60, 1), Note(4, 60, 1), Note(6, 60, 1), Note(7, 60, 1)]) == 0.5
    assert measures.on_beat([]) == 0
    assert measures.meter_agreement(0.5, 0.75) == 0.75


def test_pairs_that_agree_beat_chance_and_unrelated_ones_do_not():
    values = np.random.default_rng(0).uniform(size=12)
    alike = measures.against_chance(values, values, measures.meter_agreement)
    assert alike.value == 1 and alike.chance < 0.8 and alike.p < 0.001
    others = np.random.default_rng(1).uniform(size=12)
    unrelated = measures.against_chance(values, others, measures.meter_agreement)
    assert unrelated.p > 0.05
    same = measures.against_chance([1.0] * 5, [1.0] * 5, measures.meter_agreement)
    assert same.p == 1  # no permutation changes anything
    assert measures.against_chance([1], [1], measures.meter_agreement) is None
