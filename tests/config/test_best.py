"""Tests what `checkpoint.best` may say, and which step it makes the best."""

from __future__ import annotations

import math

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.config.best import Goal, check_reported, parse_best
from gpt2_jax.errors import UserError


def test_a_number_and_its_direction_are_parsed() -> None:
    assert parse_best("") is None
    assert parse_best("eval/loss") == Goal("eval/loss", larger=False)
    assert parse_best("max:eval/hellaswag/acc_norm") == Goal("eval/hellaswag/acc_norm", larger=True)


def test_the_earliest_of_the_best_steps_is_chosen_and_never_one_without_a_number() -> None:
    values = {2: 3.0, 4: math.nan, 6: 1.0, 8: 1.0, 10: math.inf, 12: -math.inf}
    assert Goal("eval/x", larger=False).choose(values) == 6
    assert Goal("eval/x", larger=True).choose(values) == 2
    assert Goal("eval/x", larger=True).choose({8: 3.0, 2: 3.0}) == 2
    assert Goal("eval/x", larger=False).choose({4: math.nan}) is None
    assert Goal("eval/x", larger=False).choose({}) is None


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"checkpoint.best": "loss"}, "'loss' must name a number of the validation, such as"),
        ({"checkpoint.best": "max:"}, "must name a number"),
        ({"checkpoint.best": "min:eval/loss"}, "must name a number"),
        ({"checkpoint.best": "eval/"}, "must name a number"),
        ({"checkpoint.best": "max:eval/loss"}, "smaller loss is better: write eval/loss"),
        ({"checkpoint.best": "max:eval/a/loss_at_64"}, "write eval/a/loss_at_64"),
        ({"checkpoint.best": "eval/task/acc_norm"}, "write max:eval/task/acc_norm"),
        ({"checkpoint.best": "eval/ema_loss"}, "set optimizer.ema_decay, which is 0"),
        ({"train.patience": 2}, "train.patience=2 needs checkpoint.best"),
        (
            {"train.patience": 2, "checkpoint.best": "eval/loss", "eval.every": 0},
            "train.patience=2 has no effect with eval.every=0",
        ),
    ],
)
def test_what_cannot_work_is_refused(knobs: dict[str, object], expected: str) -> None:
    sections: dict[str, dict[str, object]] = {}
    for key, value in knobs.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    with pytest.raises(UserError) as error:
        from_dict(sections)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_that_no_validation_reports_is_refused_with_those_that_there_are() -> None:
    numbers = {"eval/perplexity": 9.0, "eval/loss": 2.2}
    check_reported(Goal("eval/loss", larger=False), numbers)
    with pytest.raises(UserError) as error:
        check_reported(Goal("eval/los", larger=False), numbers)
    message = str(error.value)
    assert "report no eval/los, but eval/loss, eval/perplexity: set one of these" in message
    assert message.endswith("did you mean 'eval/loss'?")
