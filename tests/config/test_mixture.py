"""Tests the weights of a mixture: exact proportions, and a message for any other string."""

from __future__ import annotations

import pytest

from gpt2_jax.config import DataConfig
from gpt2_jax.errors import UserError
from tests.config.lines import mistake


@pytest.mark.parametrize(
    ("mixture", "shares"),
    [
        ("a=0.7,b=0.3", {"a": 7, "b": 3}),
        ("runs/a=1, runs/b=1", {"runs/a": 1, "runs/b": 1}),
        ("x=y/a=2,b=0.5,c=0.1", {"x=y/a": 20, "b": 5, "c": 1}),
        ("a=70,b=30", {"a": 7, "b": 3}),
        ("only=0.2", {"only": 1}),
        ("./x//a/=1", {"x/a": 1}),
        ("gs://bucket//a/=1,b=1", {"gs://bucket/a": 1, "b": 1}),
    ],
)
def test_shares_are_read_exactly(mixture, shares):
    assert DataConfig(mixture=mixture).weights == shares


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ("", "'' is not FOLDER=WEIGHT"),
        ("a", "'a' is not FOLDER=WEIGHT"),
        ("a=0.5,b", "'b' is not FOLDER=WEIGHT"),
        ("a=0,b=1", "'a=0' is not"),
        ("a=-1,b=1", "'a=-1' is not"),
        ("a=nan", "'a=nan' is not"),
        ("a=1/0", "'a=1/0' is not"),
        ("=1", "'=1' is not"),
        ("a=1,a=2", "names a twice"),
        ("a=0.1234567,b=1", "fewer digits"),
    ],
)
def test_a_mixture_that_cannot_be_read_is_refused(mixture, message):
    with pytest.raises(UserError, match=r"data\.mixture") as error:
        _ = DataConfig(mixture=mixture).weights
    assert message in str(error.value)


@pytest.mark.parametrize("weight", ["1e999999999", "1e-999999999", "1/0", "nan", "0", "-1", "1 2"])
def test_the_weights_of_a_mixture_are_plain_digits(weight: str) -> None:
    assert "is not FOLDER=WEIGHT" in mistake(data={"mixture": f"a=1,b={weight}"})
