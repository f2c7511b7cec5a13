"""Tests the tokenizer of models whose own cannot be read."""

from __future__ import annotations

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.streaming import StreamDecoder
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict


def test_ids_are_their_numbers_one_by_one_and_together() -> None:
    tokenizer = IdsTokenizer(33, "vocab.txt is not supported", 0, [2, 1])
    assert tokenizer.decode([0, 32, 5]) == " 0 32 5"
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, [0, 32, 5])) + stream.finish() == " 0 32 5"
    with pytest.raises(UserError, match="token id 33 is not in"):
        tokenizer.decode([33])


def test_text_is_refused_with_the_reason_and_the_remedy() -> None:
    tokenizer = IdsTokenizer(33, "vocab.txt is not supported")
    for ask in (lambda: tokenizer.encode("a"), tokenizer.byte_lengths):
        with pytest.raises(UserError) as error:
            ask()
        assert "no text (vocab.txt is not supported)" in str(error.value)
        assert "--prompt_tokens 1,2,3" in str(error.value)


def test_what_is_known_of_the_ids_survives_json() -> None:
    for tokenizer in (IdsTokenizer(33, "why", 0, [2, 1]), IdsTokenizer(5, "why")):
        again = tokenizer_from_dict(tokenizer.to_dict())
        assert again.to_dict() == tokenizer.to_dict()
        assert (again.bos, again.ends, again.eot) == (tokenizer.bos, tokenizer.ends, None)
