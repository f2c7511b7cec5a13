"""Tests of the tokenizer of words."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict
from gpt2_jax.tokenizers.words import WordsTokenizer

KNOWN = WordsTokenizer(["on", "off", "é"])


def test_words_are_numbered_and_the_end_of_text_is_last():
    assert KNOWN.encode("off on é ") == [1, 0, 2]
    assert (KNOWN.vocab_size, KNOWN.eot, KNOWN.bos, KNOWN.ends) == (4, 3, 3, {3})
    assert KNOWN.encode_array("on").dtype == np.uint16
    assert KNOWN.encode("") == []


def test_a_text_survives_and_other_white_space_becomes_a_space():
    assert KNOWN.decode(KNOWN.encode("off on é ")) == "off on é "
    assert KNOWN.decode(KNOWN.encode("\n off  on\té")) == "off on é "
    assert KNOWN.decode([1, 3, 0]) == "off on "


def test_bytes_of_tokens_add_up():
    ids = KNOWN.encode("off on é on ")
    assert KNOWN.byte_lengths()[ids].sum() == len("off on é on ".encode())
    assert KNOWN.byte_lengths()[KNOWN.eot] == 0


def test_a_text_is_cut_behind_a_space():
    text = "off on é "
    border = KNOWN.border(text, 1)
    assert border == 4 and KNOWN.border(text, 4) == 4 and KNOWN.border(text, 8) is None
    assert KNOWN.encode(text[:border]) + KNOWN.encode(text[border:]) == KNOWN.encode(text)


def test_its_description_makes_it_again():
    again = tokenizer_from_dict(KNOWN.to_dict())
    assert isinstance(again, WordsTokenizer) and again.words == KNOWN.words


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "at least one word"), (["a b"], "'a b' is not a word"), (["a", "a"], "a word twice")],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        WordsTokenizer(words)


def test_unknown_words_are_named():
    with pytest.raises(UserError, match="does not know 'of'"):
        KNOWN.encode("on of")
    with pytest.raises(UserError, match="token id 4 is not in"):
        KNOWN.decode([4])
