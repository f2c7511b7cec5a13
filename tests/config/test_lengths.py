from __future__ import annotations

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.config.lengths import parse_lengths
from gpt2_jax.config.model import LONGEST
from gpt2_jax.errors import UserError


def config(lengths, position="rotary"):
    model = {"context_length": 16, "position": position}
    return from_dict({"model": model, "eval": {"context_lengths": lengths}})


def test_lengths_are_numbers_in_their_order():
    assert parse_lengths("") == parse_lengths(" ") == []
    assert config("512, 256").eval.lengths == [512, 256]


@pytest.mark.parametrize("text", ["0", "-1", "1,", "1;2", "1.5", "one", "²", "9" * 5000])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(
        UserError, match=r"eval\.context_lengths must be numbers of tokens"
    ) as error:
        config(text)
    assert len(str(error.value)) < 200


def test_a_length_twice_is_refused():
    with pytest.raises(UserError, match=r"eval\.context_lengths=32,032 names a length twice"):
        config("32,032")


def test_learned_positions_refuse_what_is_longer_than_the_context():
    assert config("8,16", "learned").eval.lengths == [8, 16]
    with pytest.raises(
        UserError, match=r"context_lengths=8,17: 17 is too long, because with model\.position=learn"
    ):
        config("8,17", "learned")
    for position in ("rotary", "alibi", "relative", "none"):
        assert config("8,17", position).eval.lengths == [8, 17]
    with pytest.raises(UserError, match=f"more than {LONGEST} tokens cannot be computed at once"):
        config(f"{LONGEST + 1}")
