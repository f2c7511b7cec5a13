"""Estimates, powers and verdicts equal those that statsmodels 0.15.0 gave for the same numbers.

The comments have its calls. It is not installed for the tests.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_jax.sweeps.statistics.differences import difference, holm, welch
from gpt2_jax.sweeps.statistics.power import power, seeds_needed, smallest_detectable_effect
from gpt2_jax.sweeps.statistics.verdict import EQUIVALENT, WORSE, decide, equivalence_p

_ARM = np.array([1.51, 1.47, 1.62, 1.40, 1.58, 1.49])
_BASELINE = np.array([1.55, 1.49, 1.70, 1.46, 1.57, 1.56])
_SEEDS = (3, 5, 10, 20)


def test_paired_differences():
    # DescrStatsW(arm - baseline).tconfint_mean(0.05), .ttest_mean(0)
    found = difference(dict(enumerate(_ARM)), dict(enumerate(_BASELINE)))
    assert found.paired and float(found.test.estimate) == pytest.approx(-0.043333333333)
    assert found.test.interval() == pytest.approx((-0.0788698129857, -0.0077968536809))
    assert found.test.p_value() == pytest.approx(0.0258237124658)
    assert float(found.test.freedom) == 5


def test_unpaired_differences():
    # CompareMeans(DescrStatsW(arm), DescrStatsW(baseline[:4])).ttest_ind(usevar="unequal")
    found = welch(_ARM, _BASELINE[:4])
    assert found.interval() == pytest.approx((-0.1970260866113, 0.1203594199446))
    assert found.p_value() == pytest.approx(0.5646736378890)
    assert float(found.freedom) == pytest.approx(5.1679667551935)


@pytest.mark.parametrize(
    ("delta", "p"), [(0.0668, 0.0751808), (0.07, 0.0558187), (0.08, 0.0226495), (0.1, 0.0046817)]
)
def test_equivalence_is_both_one_sided_tests(delta, p):
    # ttost_paired(arm, baseline, -delta, delta)
    test = difference(dict(enumerate(_ARM)), dict(enumerate(_BASELINE))).test
    found = equivalence_p(test, delta)
    assert float(found) == pytest.approx(p, abs=5e-8)
    verdict = decide(test, test.p_value(), found, higher_is_better=True)
    assert str(verdict) == (EQUIVALENT if p < 0.05 else WORSE)


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (1, (3.264043552820, 1.681997083323, 0.996001910762, 0.660441654438)),
        # For 3 seeds its solver stops early; .power(6.546046685, 3, 0.0125) is 0.8.
        (4, (6.546046685, 2.476790392567, 1.284296605027, 0.814591415441)),
    ],
)
def test_smallest_detectable_effects(arms, expected):
    # TTestPower().solve_power(effect_size=None, nobs=n, alpha=0.05 / arms, power=0.8)
    found = [smallest_detectable_effect(count, arms=arms) for count in _SEEDS]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (0.5, (0.0841070559, 0.1405166900, 0.2931756065)),
        (1.0, (0.1792553938, 0.4013899174, 0.8030968566)),
        (2.0, (0.4707494313, 0.9088848681, 0.9998419874)),
    ],
)
def test_powers(effect, expected):
    # TTestPower().power(effect, n, 0.05)
    assert [power(effect, n) for n in _SEEDS[:3]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("effect", "expected"), [(0.3, 89.149), (1.0, 9.938), (2.0, 4.221)])
def test_numbers_of_seeds(effect, expected):
    # TTestPower().solve_power(effect_size=effect, nobs=None, alpha=0.05, power=0.8)
    assert seeds_needed(1.0, effect, equivalence=False) == np.ceil(expected)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ((0.004, 0.03, 0.01, 0.25, 0.0125), (0.02, 0.06, 0.04, 0.25, 0.04)),
        ((0.04, 0.03, 0.02), (0.06, 0.06, 0.06)),
    ],
)
def test_holm(p, expected):
    # multipletests(p, 0.05, "holm")
    assert holm(np.array(p)) == pytest.approx(expected)
