"""Agreement: times of programs that computed something else are not compared."""

import math

import pytest

from experiments.benchmarks.agreement import compare
from experiments.benchmarks.case import Gate

_LOSSES = [4.0 - 0.1 * i for i in range(20)]


def test_equal_losses_pass():
    found = compare(Gate("losses", 1e-4), {"a": _LOSSES, "b": [x + 1e-5 for x in _LOSSES]}, 20)
    assert found["passed"] == {"a": True, "b": True}
    assert found["count"] == 20


@pytest.mark.parametrize(
    "others",
    [
        [*_LOSSES[:-1], _LOSSES[-1] + 0.01],
        [*_LOSSES[:-1], math.nan],
        _LOSSES[:-1],
        [],
    ],
    ids=["one differs", "not a number", "too few", "none"],
)
def test_losses_that_differ_fail(others):
    found = compare(Gate("losses", 1e-4), {"a": _LOSSES, "b": others}, 20)
    assert found["passed"] == {"a": True, "b": False}


def test_too_few_losses_fail_for_everybody():
    found = compare(Gate("losses", 1e-4), {"a": _LOSSES[:5], "b": _LOSSES[:5]}, 20)
    assert found["passed"] == {"a": False, "b": False}


def test_losses_after_those_to_compare_may_drift():
    later = [*_LOSSES, 1.0, 1.1]
    gate = Gate("losses", 1e-4, at_least=20, at_most=20)
    found = compare(gate, {"a": later, "b": [*_LOSSES, 1.2, 0.9]}, 20)
    assert found["passed"] == {"a": True, "b": True} and found["count"] == 20
    assert not compare(gate, {"a": later, "b": [9.0, *later[1:]]}, 20)["passed"]["b"]


def test_tokens_must_be_equal():
    tokens = [[5, 6, 7], [8, 9, 0]]
    found = compare(Gate("tokens", 0), {"a": tokens, "b": tokens, "c": [[5, 6, 7], [8, 9, 1]]}, 1)
    assert found["passed"] == {"a": True, "b": True, "c": False}
    assert found["differences"]["c"] == pytest.approx(1 / 6)
