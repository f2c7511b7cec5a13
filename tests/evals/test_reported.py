"""Tests that a number which validations will not report is refused before a run starts."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.evals.reported import check_best_is_reported


def _check(best: str, sets: list[str], tasks: list[str], **sections: dict[str, Any]) -> None:
    config = from_dict({"checkpoint": {"best": best}, **sections})
    check_best_is_reported(config, sets, tasks)


@pytest.mark.parametrize(
    "best", ["", "eval/loss", "eval/bits_per_byte", "eval/loss_at_64", "max:eval/hellaswag/acc"]
)
def test_numbers_that_will_be_reported(best: str) -> None:
    _check(best, ["data/a"], ["hellaswag"], eval={"context_lengths": "64"})


def test_sets_of_a_mixture_and_the_average_have_their_own() -> None:
    average = {"ema_decay": 0.9}
    for best in ("eval/qa.jsonl/loss", "eval/ema_loss", "eval/ema_web/loss"):
        _check(best, ["data/web", "qa.jsonl"], [], optimizer=average)


@pytest.mark.parametrize(
    ("best", "words"),
    [
        ("eval/los", "did you mean 'eval/loss'"),
        ("eval/ema_los", "did you mean 'eval/ema_loss'"),
        ("max:eval/lambada/acc", "eval/hellaswag/..."),
        ("eval/loss_at_64", "report no eval/loss_at_64"),
        ("eval/web/loss", "report no eval/web/loss"),
    ],
)
def test_others_are_refused_with_a_list(best: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        _check(best, ["data/web"], ["hellaswag"], optimizer={"ema_decay": 0.9})
    assert words in str(error.value) and "\n" not in str(error.value)
