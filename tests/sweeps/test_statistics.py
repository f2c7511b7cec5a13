"""Statistics equal scipy's and formulas written out again, on made data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gpt2_jax.sweeps.statistics import differences
from gpt2_jax.sweeps.statistics.differences import (
    bca_interval,
    deviation_interval,
    difference,
    holm,
    mean,
    sign_flip_p,
    welch,
)

_RANDOM = np.random.default_rng(0)
_ARM, _BASELINE = _RANDOM.normal(1.2, 0.3, 6), _RANDOM.normal(1.0, 0.1, 6)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_mean_is_scipys(level):
    found = mean(_ARM)
    expected = stats.ttest_1samp(_ARM, 0.0)
    assert found.interval(level) == pytest.approx(tuple(expected.confidence_interval(level)))
    assert found.p_value() == pytest.approx(expected.pvalue)


def test_paired_differences_are_scipys():
    found = difference(dict(enumerate(_ARM)), dict(enumerate(_BASELINE)))
    expected = stats.ttest_rel(_ARM, _BASELINE)
    assert found.paired and found.count == 6
    assert found.test.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert found.test.p_value() == pytest.approx(expected.pvalue)
    assert found.correlation == pytest.approx(stats.pearsonr(_ARM, _BASELINE).statistic)
    assert found.deviation == pytest.approx(np.std(_ARM - _BASELINE, ddof=1))


def test_the_interval_of_a_deviation_covers_as_often_as_it_says():
    values_SxN = _RANDOM.normal(3.0, 0.2, (2000, 8))
    bounds = np.array([deviation_interval(values) for values in values_SxN])
    assert np.mean((bounds[:, 0] < 0.2) & (bounds[:, 1] > 0.2)) == pytest.approx(0.95, abs=0.015)
    low, high = stats.chi2.ppf([0.975, 0.025], 5)
    expected = np.std(_ARM, ddof=1) * np.sqrt(5 / np.array([low, high]))
    assert deviation_interval(_ARM) == pytest.approx(tuple(expected))
    assert np.isnan(deviation_interval(_ARM[:1])).all()


@pytest.mark.parametrize("count", [3, 6])
def test_unpaired_differences_are_scipys(count):
    found = welch(_ARM, _BASELINE[:count])
    expected = stats.ttest_ind(_ARM, _BASELINE[:count], equal_var=False)
    assert found.interval(0.9) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    assert found.p_value() == pytest.approx(expected.pvalue)


def test_several_samples_at_once_are_the_same_as_one_after_the_other():
    values_4xN, others_4xM = _RANDOM.normal(size=(4, 5)), _RANDOM.normal(size=(4, 3))
    together, apart = welch(values_4xN, others_4xM), [*map(welch, values_4xN, others_4xM)]
    assert together.p_value() == pytest.approx([float(each.p_value()) for each in apart])
    p_4xA = _RANDOM.uniform(0, 0.1, (4, 5))
    np.testing.assert_allclose(holm(p_4xA), [holm(p_A) for p_A in p_4xA])


def test_pairs_are_used_while_one_arm_has_no_seed_of_its_own():
    baseline = {0: 1.0, 1: 1.1, 2: 1.3, 3: 1.2}
    fewer = difference({0: 1.1, 1: 1.3, 2: 1.3}, baseline)
    assert fewer.paired and fewer.count == 3
    assert fewer.values_N == pytest.approx([0.1, 0.2, 0.0])
    arm = {1: 1.3, 2: 1.3, 3: 1.4, 4: 1.5}
    missing = difference(arm, baseline)
    expected = stats.ttest_ind([*arm.values()], [*baseline.values()], equal_var=False)
    assert not missing.paired and missing.test.p_value() == pytest.approx(expected.pvalue)
    assert missing.correlation is not None
    assert missing.deviation / math.sqrt(4) == pytest.approx(float(missing.test.error))


def test_too_few_values_show_nothing():
    for found in (difference({0: 1.0}, {0: 2.0}), difference({0: 1.0}, {1: 2.0, 2: 3.0})):
        assert found.test.p_value() == 1.0
        assert np.isnan(found.test.interval()).all()
        assert math.isnan(found.deviation) and found.correlation is None


def test_equal_differences_leave_no_doubt():
    same = difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert same.test.p_value() == 1.0 and same.test.interval() == (0.0, 0.0)
    # With numbers that are exact in binary.
    other = difference({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0})
    assert other.test.p_value() == 0.0 and other.test.interval() == (0.5, 0.5)


@pytest.mark.parametrize("values", [_RANDOM.exponential(size=8), _RANDOM.normal(size=20)])
def test_bootstrap_intervals_are_scipys(values):
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=100_000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bca_interval(values, resamples=100_000)
    assert found == pytest.approx(tuple(expected), abs=0.02 * np.std(values))
    assert bca_interval(values) == bca_interval(values)
    assert bca_interval(np.full(8, 0.25)) == (0.25, 0.25)


def test_sign_flips_are_scipys_permutations(monkeypatch):
    values = _RANDOM.normal(0.4, 1.0, 9)
    exact = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=1000)
    assert sign_flip_p(values) == pytest.approx(exact.pvalue)
    monkeypatch.setattr(differences, "_MOST_FLIPPED", 5)
    assert sign_flip_p(values) == pytest.approx(exact.pvalue, abs=0.01)


@pytest.mark.parametrize("count", [3, 5, 6])
def test_sign_flips_have_a_least_p_value(count):
    assert sign_flip_p(np.linspace(0.1, 0.3, count)) == pytest.approx(2.0 ** (1 - count))


def test_holm_is_the_maximum_over_the_smaller_p_values():
    # As statsmodels' multipletests computes it: max over j <= i of (m - j) p_(j), at most 1.
    for count in (1, 2, 5):
        p = _RANDOM.uniform(0, 0.2, count)
        order = sorted(range(count), key=lambda index: p[index])
        for rank, index in enumerate(order):
            steps = itertools.islice(enumerate(order), rank + 1)
            expected = min(1.0, max((count - place) * p[each] for place, each in steps))
            assert holm(p)[index] == pytest.approx(expected)
