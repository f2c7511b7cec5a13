"""Intervals by resampling examples, and of differences on the same examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2_jax.tasks.base import Metric, average
from gpt2_jax.tasks.bootstrap import difference, interval


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(average("a", values.tolist()))
    error = values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(error, rel=0.1)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=error / 3)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=error / 3)
    assert interval(average("a", values.tolist())) == found


def test_a_metric_is_resampled_by_its_statistics() -> None:
    hits = Metric("share", np.array([[1.0, 2.0], [3.0, 4.0]]), lambda sums: sums[0] / sums[1])
    assert interval(hits).value == pytest.approx(4 / 6)
    assert 0.5 == interval(hits).low < interval(hits).high == 0.75


def test_a_difference_on_the_same_examples_is_narrower_than_either_interval() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 10, 200)
    worse, better = average("a", values.tolist()), average("a", (values + 1).tolist())
    found = difference(better, worse)
    assert found.interval.value == pytest.approx(1) and found.interval.stderr < 1e-9
    assert found.p == pytest.approx(1 / 1001) and interval(better).stderr > 0.5
    assert difference(worse, better).p == found.p
    assert difference(worse, worse).p == 1
    with pytest.raises(ValueError, match="different examples"):
        difference(better, average("a", [1.0]))


def test_one_example_has_no_interval() -> None:
    found = interval(average("a", [3.0]))
    assert found.value == 3 and all(map(math.isnan, found[1:]))
