"""Verdicts are as often wrong, and effects as often found, as they say: simulated sweeps."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.outcomes import read_sweep
from gpt2_jax.sweeps.statistics.differences import TTest, difference, holm, mean, welch
from gpt2_jax.sweeps.statistics.power import smallest_detectable_effect
from gpt2_jax.sweeps.statistics.verdict import (
    BETTER,
    EQUIVALENT,
    UNDECIDED,
    WORSE,
    decide,
    equivalence_p,
    more_seeds,
    time_to_loss,
)
from tests.sweeps.made_sweep import write_sweep

_SWEEPS = 10_000


def _losses(seed: int, arms: int, count: int, correlation: float = 0.5) -> np.ndarray:
    """Returns [sweeps, arms, seeds] losses without any effect, correlated within a seed."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(_SWEEPS, 1, count)) * np.sqrt(correlation)
    return 3.0 + shared + random.normal(size=(_SWEEPS, arms, count)) * np.sqrt(1 - correlation)


def _verdicts(test: TTest, p: np.ndarray, delta: float | None = None) -> np.ndarray:
    alike = None if delta is None else equivalence_p(test, delta)
    return decide(test, p, alike, higher_is_better=False)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_without_an_effect_intervals_cover_and_verdicts_are_seldom_false(count):
    losses = _losses(count, 2, count)
    test = mean(losses[:, 1] - losses[:, 0])
    low, high = test.interval()
    assert 0.944 <= np.mean((low <= 0) & (high >= 0)) <= 0.956
    assert np.mean(_verdicts(test, test.p_value()) != UNDECIDED) <= 0.056
    unpaired = welch(losses[:, 1], _losses(count + 1, 1, count + 2)[:, 0])
    low, high = unpaired.interval()
    # Welch's degrees of freedom are an approximation, which errs on the safe side.
    assert 0.944 <= np.mean((low <= 0) & (high >= 0)) <= 0.975


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_smallest_detectable_effect_is_found_four_times_in_five(count):
    losses = _losses(10 + count, 2, count)
    differences = losses[:, 1] - losses[:, 0]  # their standard deviation is 1
    better = mean(differences - smallest_detectable_effect(count))
    assert 0.78 <= np.mean(_verdicts(better, better.p_value()) == BETTER) <= 0.82
    worse = mean(differences + smallest_detectable_effect(count))
    assert 0.78 <= np.mean(_verdicts(worse, worse.p_value()) == WORSE) <= 0.82


@pytest.mark.parametrize("count", [3, 5, 10])
def test_without_pairs_the_detectable_effect_has_the_freedom_of_both_arms(count):
    arm, baseline = _losses(70 + count, 1, count)[:, 0], _losses(80 + count, 1, count)[:, 0]
    both = np.sqrt(2)  # the standard deviation of differences, since each arm's is 1
    freedom = float(np.mean(welch(arm, baseline).freedom))  # below 2 (n - 1) for few seeds
    effect = both * smallest_detectable_effect(count, freedom=freedom)
    test = welch(arm - effect, baseline)
    assert 0.76 <= np.mean(_verdicts(test, test.p_value()) == BETTER) <= 0.82
    assert effect < both * smallest_detectable_effect(count)  # which pairs would need


@pytest.mark.parametrize("count", [3, 5, 10])
def test_several_arms_together_are_seldom_judged_falsely(count):
    losses = _losses(20 + count, 6, count)
    test = mean(losses[:, 1:] - losses[:, :1])
    false = _verdicts(test, holm(test.p_value())) != UNDECIDED
    assert np.mean(false.any(axis=-1)) <= 0.056
    unadjusted = _verdicts(test, test.p_value()) != UNDECIDED
    assert np.mean(unadjusted.any(axis=-1)) > 0.1


@pytest.mark.parametrize("count", [3, 5, 10])
def test_a_difference_of_delta_is_seldom_called_equivalent(count):
    losses = _losses(30 + count, 2, count)
    test = mean(losses[:, 1] - losses[:, 0] + 2.0)
    assert np.mean(_verdicts(test, test.p_value(), 2.0) == EQUIVALENT) <= 0.056
    low, high = test.interval(0.9)
    np.testing.assert_array_equal(equivalence_p(test, 2.0) < 0.05, (low > -2.0) & (high < 2.0))


@pytest.mark.parametrize("count", [3, 5, 10])
def test_several_arms_that_differ_by_delta_are_seldom_called_equivalent(count):
    losses = _losses(50 + count, 6, count)
    test = mean(losses[:, 1:] - losses[:, :1] + 2.0)
    adjusted = holm(equivalence_p(test, 2.0))
    assert np.mean((adjusted < 0.05).any(axis=-1)) <= 0.056
    assert np.mean((equivalence_p(test, 2.0) < 0.05).any(axis=-1)) > 0.1


def test_reports_give_the_verdicts_that_are_simulated(tmp_path):
    """Compares arms as a report does, of the first sweeps of a simulation with some effects."""
    effects = np.array([0.0, -1.5, 0.5, 3.0])
    losses = _losses(40, 4, 5)[:12] + effects[:, None]
    test = mean(losses[:, 1:] - losses[:, :1])
    p_xA = holm(test.p_value())
    alike = holm(equivalence_p(test, 0.5))
    expected = decide(test, p_xA, alike, higher_is_better=False)
    assert len({*expected.ravel()}) > 2
    for sweep, losses_AxN in enumerate(losses):
        finals = {f"arm {arm}": values.tolist() for arm, values in enumerate(losses_AxN)}
        folder = write_sweep(tmp_path / str(sweep), finals, baseline="arm 0", delta=0.5)
        rows = compare_arms(read_sweep(folder), "main")[1:]
        assert [row.versus.verdict for row in rows if row.versus] == [*expected[sweep]]
        found = [row.versus.adjusted_p for row in rows if row.versus]
        np.testing.assert_allclose(found, p_xA[sweep])


def test_points_of_an_earlier_choice_are_left_out(tmp_path):
    folder = write_sweep(tmp_path, {"a": [1.0, 1.1], "b": [2.0, 2.1]}, baseline="a")
    point = read_sweep(folder).points[-1]
    left = folder / "points" / "left-out"
    shutil.copytree(folder / "points" / point.name, left)
    values = json.loads((left / "point.json").read_text())
    (left / "point.json").write_text(json.dumps(values | {"name": "left-out"}))
    assert [each.name for each in read_sweep(folder).points].count("left-out") == 0
    assert len(read_sweep(folder).points) == 4


def test_the_four_verdicts():
    clear, unclear = [0.0, 0.001, 0.002], [-0.2, 0.0, 0.3]
    for values, higher, expected in (
        (clear, False, EQUIVALENT),
        ([0.099, 0.1, 0.101], False, WORSE),
        ([0.099, 0.1, 0.101], True, BETTER),
        ([-0.099, -0.1, -0.101], False, BETTER),
        (unclear, False, UNDECIDED),
    ):
        test = mean(np.array(values))
        alike = equivalence_p(test, 0.01)
        found = decide(test, test.p_value(), alike, higher_is_better=higher)
        assert str(found) == expected
    single = mean(np.array([0.0]))
    assert str(_verdicts(single, single.p_value(), 1.0)) == UNDECIDED


def test_an_undecided_comparison_says_how_many_seeds_it_lacks():
    baseline = {0: 1.0, 1: 1.2, 2: 1.4}
    found = difference({0: 1.1, 1: 1.2, 2: 1.6}, baseline)
    assert found.deviation == pytest.approx(0.1)
    # An effect of one standard deviation: 10 seeds find it, 11 also show that there is none.
    assert more_seeds(found, None, 1) == 7
    assert more_seeds(found, 0.1, 1) == 8
    more = more_seeds(found, 0.1, 4)
    assert more is not None and more > 8
    assert more_seeds(found, 1e-6, 1) is None
    assert more_seeds(difference({0: 1.0}, {0: 2.0}), 0.1, 1) is None


def test_time_to_loss_is_interpolated_and_censored():
    tokens, losses = np.array([100.0, 200.0, 300.0]), np.array([4.0, 3.0, 2.5])
    assert time_to_loss(tokens, losses, 3.25) == (175.0, True)
    assert time_to_loss(tokens, losses, 4.5) == (100.0, True)
    assert time_to_loss(tokens, losses, 2.0) == (300.0, False)
    # The first crossing counts, even if the loss rises again.
    assert time_to_loss(tokens, np.array([4.0, 2.0, 3.0]), 3.0) == (150.0, True)
