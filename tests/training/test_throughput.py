from __future__ import annotations

import pytest

from gpt2_jax.training.goodput import DATA_WAIT, Goodput
from gpt2_jax.training.throughput import Throughput
from tests.training.tiny import Clock


def test_throughput_and_mfu_of_the_interval_without_its_pauses():
    clock = Clock()
    goodput = Goodput(clock)
    throughput = Throughput(1000, 6e6, 12e9, goodput, clock)
    assert throughput.measure(1) == {}  # the first interval includes compilation
    clock.now += 4
    with goodput.measuring("validation"):
        clock.now += 100
    with goodput.measuring(DATA_WAIT):
        clock.now += 1
    rates = throughput.measure(6)
    assert rates == {"tokens_per_second": 1000.0, "mfu": pytest.approx(0.5)}
    clock.now += 1
    assert throughput.measure(7)["tokens_per_second"] == 1000.0
    assert throughput.measure(7) == {}


def test_without_a_known_peak_there_is_no_mfu():
    clock = Clock()
    throughput = Throughput(10, 1.0, None, Goodput(clock), clock)
    throughput.measure(0)
    clock.now += 2
    assert throughput.measure(1) == {"tokens_per_second": 5.0}
