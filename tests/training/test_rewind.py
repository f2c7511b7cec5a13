"""A longer run on resume keeps the learning rates of the steps so far, or is asked for by name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.training.optimizer import make_schedule
from gpt2_jax.training.rewind import check_rates_so_far
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import lines, make_config, make_setup


def _check(step, name="cosine", total=24, **changes):
    def config(total_steps, **changes):
        return make_config(
            schedule__name=name, schedule__warmup_steps=4, train__total_steps=total_steps, **changes
        )

    check_rates_so_far(config(12), config(total, **changes), step, "runs/a")


@pytest.mark.parametrize(
    ("step", "name", "total", "fits"),
    [
        (12, "cosine", 12, True),
        (12, "cosine", 13, False),
        (6, "cosine", 24, False),
        (6, "linear", 24, False),
        (4, "cosine", 24, True),  # warmup
        (5, "linear", 24, True),  # the first step after it is at the peak
        (12, "constant", 10**6, True),
        (11, "wsd", 24, True),  # the first step of the decay is at the peak
        (12, "wsd", 24, False),
        (12, "wsd", 13, False),
    ],
)
def test_a_run_may_grow_if_its_rates_so_far_stay(step, name, total, fits):
    if fits:
        return _check(step, name, total)
    with pytest.raises(UserError, match="learning rates of the updates so far would have been oth"):
        _check(step, name, total)
    _check(step, name, total, schedule__allow_rewind=True)


def test_the_refusal_gives_the_rates_and_the_choices():
    with pytest.raises(UserError) as error:
        _check(12)
    assert str(error.value) == (
        "train.total_steps=24 instead of 12 stretches the cosine decay. The learning rates of the "
        "updates so far would have been others: update 12 of 12 differs most (3.8e-05 before, "
        "0.00073 now), and the next would jump (0 before, 0.00065 now): keep 12; or start a new "
        "run, with another --workdir and --config.train.init_from=runs/a; or accept the jump with "
        "--config.schedule.allow_rewind=true"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("step", "total"), [(12, 13), (6, 13), (6, 200_000)])
def test_the_rates_that_differ_are_written_with_digits_that_differ(step, total):
    def config(total_steps):
        return make_config(
            schedule__name="cosine",
            schedule__learning_rate=6e-4,
            schedule__warmup_steps=2,
            train__total_steps=total_steps,
        )

    before, after = config(100_000), config(100_000 + total)
    with pytest.raises(UserError) as error:
        check_rates_so_far(before, after, 4000 + step, "runs/a")
    pairs = re.findall(r"\((\S+) before, (\S+) now\)", str(error.value))
    assert len(pairs) == 2 and all(one != other for one, other in pairs)
    rates = [make_schedule(each.schedule, each.train.total_steps) for each in (before, after)]
    most = int(re.search(r"update (\d+) of", str(error.value))[1]) - 1
    for (one, other), update in zip(pairs, (most, 4000 + step), strict=True):
        assert float(one) == pytest.approx(float(rates[0](update)), rel=0.05)
        assert float(other) == pytest.approx(float(rates[1](update)), rel=0.05)
    largest = abs(rates[0](np.arange(4000)) - rates[1](np.arange(4000))).max()
    assert abs(rates[0](most) - rates[1](most)) >= largest


@pytest.mark.slow
def test_a_finished_run_grows_only_if_the_jump_is_accepted(tmp_path, capfd):
    def train(**changes):
        config = make_config(eval__every=0, log__every=1, **changes)
        return Trainer(config, tmp_path, make_setup(config)).run()

    train(train__total_steps=4)
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    with pytest.raises(UserError, match=r"jump \(0 before, .*allow_rewind=true"):
        train(train__total_steps=6)
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before
    assert train(train__total_steps=6, schedule__allow_rewind=True)["step"] == 6
    assert "stretches the cosine decay" in capfd.readouterr().err
    rates = [line["learning_rate"] for line in lines(tmp_path) if "loss" in line]
    assert rates[4] == pytest.approx(0.5e-3)  # halfway through the longer decay
    # What is done is done: without the knob, the run may be looked at again.
    assert train(train__total_steps=6)["step"] == 6
