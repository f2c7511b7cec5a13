"""Tests of the tokenizer of single characters."""

from __future__ import annotations

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.char import CharTokenizer


def test_char_numbers_characters_in_sorted_order():
    tokenizer = CharTokenizer("cabbage")
    assert tokenizer.characters == "abceg"
    assert tokenizer.encode("gab") == [4, 0, 1]
    assert tokenizer.eot is None


@pytest.mark.parametrize("character", ["z", "\x00", "😀"])
def test_unknown_character_is_named(character):
    with pytest.raises(UserError) as error:
        CharTokenizer("cabbage").encode("bag" + character)
    assert repr(character) in str(error.value) and "the 5 characters" in str(error.value)
