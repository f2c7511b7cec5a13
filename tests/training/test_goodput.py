from __future__ import annotations

import pytest

from gpt2_jax.training.goodput import DATA_WAIT, Goodput
from tests.training.tiny import Clock


def test_every_second_counts_once_and_the_rest_is_training():
    clock = Clock()
    goodput = Goodput(clock)
    assert goodput.measure() == {"goodput": 0.0, "seconds/training": 0.0}
    with goodput.measuring("startup"):
        clock.now += 2
        with goodput.measuring("compilation"):
            clock.now += 30
        clock.now += 1
    clock.now += 60
    with goodput.measuring(DATA_WAIT):
        clock.now += 3
    with pytest.raises(KeyError), goodput.measuring("save"):
        clock.now += 4
        raise KeyError
    expected = {
        "training": 60.0,
        "startup": 3.0,
        "compilation": 30.0,
        "data_wait": 3.0,
        "save": 4.0,
    }
    assert goodput.measure() == {
        "goodput": pytest.approx(0.6),
        **{f"seconds/{name}": seconds for name, seconds in expected.items()},
    }
    assert sum(expected.values()) == clock.now
    clock.now += 100  # training again, since the block with the exception has ended
    assert goodput.measure()["seconds/training"] == 160


def test_waiting_for_data_is_no_pause_but_everything_else_is():
    clock = Clock()
    goodput = Goodput(clock)
    clock.now += 7
    with goodput.measuring(DATA_WAIT):
        clock.now += 3
    assert goodput.paused == 0
    with goodput.measuring("validation"):
        clock.now += 5
        assert goodput.paused == 5  # also in the middle of one
    clock.now += 1
    assert goodput.paused == 5
