"""The smallest detectable effect and the numbers of seeds keep their promises."""

from __future__ import annotations

import math

import pytest
from scipy import integrate, stats

from gpt2_jax.sweeps.statistics.power import (
    MOST_SEEDS,
    equivalence_power,
    exceeds,
    power,
    seeds_needed,
    smallest_detectable_effect,
)


def test_the_smallest_detectable_effects_of_few_seeds():
    found = [smallest_detectable_effect(count) for count in (3, 5, 10)]
    assert found == pytest.approx([3.264, 1.682, 0.996], abs=0.001)
    assert smallest_detectable_effect(1) == math.inf
    assert smallest_detectable_effect(5, arms=4) > found[1]


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("effect", [0.0, 0.7, 2.0])
def test_power_is_the_integral_over_the_standard_deviation(count, effect):
    # As statsmodels' TTestPower does, but with the definition of the noncentral t: a normal number
    # divided by the root of an independent chi-squared number over its degrees of freedom.
    critical, shift = stats.t.ppf(0.975, count - 1), effect * math.sqrt(count)

    def found(chi2: float) -> float:
        bound = critical * math.sqrt(chi2 / (count - 1))
        return stats.norm.sf(bound, shift) + stats.norm.cdf(-bound, shift)

    expected, _ = integrate.quad(
        lambda chi2: found(chi2) * stats.chi2.pdf(chi2, count - 1), 0, math.inf
    )
    assert power(effect, count) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 100])
def test_the_noncentral_t_is_scipys(count):
    for shift in (0.0, 1.0, 3.0):
        for critical in (0.5, 2.0, 5.0):
            expected = stats.nct.sf(critical, count - 1, shift)
            assert exceeds(critical, count - 1, shift) == pytest.approx(expected, abs=1e-6)


def test_the_textbook_formula_promises_too_much_for_three_seeds():
    textbook = (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) / math.sqrt(3)
    assert textbook == pytest.approx(3.10, abs=0.01)
    assert power(textbook, 3) == pytest.approx(0.766, abs=0.003)


@pytest.mark.parametrize("effect", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("arms", [1, 4])
def test_the_seeds_needed_are_the_fewest_that_suffice(effect, arms):
    count = seeds_needed(2.0, 2.0 * effect, arms=arms, equivalence=False)
    assert smallest_detectable_effect(count, arms=arms) <= effect
    assert count == 2 or smallest_detectable_effect(count - 1, arms=arms) > effect
    both = seeds_needed(2.0, 2.0 * effect, arms=arms, equivalence=True)
    assert both >= count and equivalence_power(effect, both) >= 0.8


def test_more_seeds_than_anyone_runs_are_not_counted():
    assert seeds_needed(1.0, 1e-6, arms=1, equivalence=True) == MOST_SEEDS + 1
