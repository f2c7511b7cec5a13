"""Tests of what all tokenizers have in common, and of the table of their kinds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.config import DataConfig
from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.tokenizer import (
    _KINDS,
    PREPARE_CHOICES,
    make_tokenizer,
    needs_characters,
    tokenizer_from_dict,
)

GPT2, BYTE = GPT2Tokenizer(), ByteTokenizer()
SAMPLE = "Hello, wörld!\r\n\t 日本語 😀 <|endoftext|> don't 1234  \n\n"
CHAR = CharTokenizer(SAMPLE)
ALL = pytest.mark.parametrize("tokenizer", [GPT2, BYTE, CHAR], ids=lambda t: t.name)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_decode_inverts_encode(text):
    for tokenizer in (GPT2, BYTE):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.eot not in ids


@ALL
def test_roundtrips_the_sample_through_json_values(tokenizer):
    again = tokenizer_from_dict(tokenizer.to_dict())
    assert again.decode(tokenizer.encode(SAMPLE)) == SAMPLE
    assert (again.name, again.vocab_size, again.eot) == (
        tokenizer.name,
        tokenizer.vocab_size,
        tokenizer.eot,
    )


@ALL
def test_encode_array_equals_encode(tokenizer):
    array = tokenizer.encode_array(SAMPLE)
    assert array.dtype == np.uint16
    assert array.tolist() == tokenizer.encode(SAMPLE)
    assert tokenizer.encode("") == []


@ALL
def test_byte_lengths_add_up_to_the_text(tokenizer):
    lengths = tokenizer.byte_lengths()
    assert lengths.shape == (tokenizer.vocab_size,) and lengths.dtype == np.int32
    assert lengths[tokenizer.encode(SAMPLE)].sum() == len(SAMPLE.encode())
    if tokenizer.eot is not None:
        assert lengths[tokenizer.eot] == 0


@ALL
@pytest.mark.parametrize("beyond", [0, 47, 10**9])
def test_ids_out_of_range_are_refused(tokenizer, beyond):
    for wrong in (tokenizer.vocab_size + beyond, -1):
        with pytest.raises(UserError, match=f"token id {wrong} .* 0 to {tokenizer.vocab_size - 1}"):
            tokenizer.decode([0, wrong])


@ALL
def test_lone_surrogates_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"surrogate.*character 2"):
        tokenizer.encode("He\ud800")


def test_bad_names_and_descriptions_are_refused():
    with pytest.raises(UserError, match="did you mean 'byte'"):
        make_tokenizer("bytes")
    with pytest.raises(UserError, match="characters"):
        make_tokenizer("char")
    wrong: list[Any] = [{}, {"name": 3}, {"name": "char", "characters": 7}, [], None]
    for values in wrong:
        with pytest.raises(UserError, match="tokenizer"):
            tokenizer_from_dict(values)


# Characters and strings that GPT-2's pattern treats specially, often side by side.
_CHARACTERS = "aZäß日9٣½'\u2019_-.,!({ \t\n\r\x0b\x1c\x1f\x85\xa0\u2009\u3000\u200b\u0301😀\x00"
_SNIPPETS = st.sampled_from(
    [*_CHARACTERS, "'s", "'ll", " '", "  ", "\r\n", " \n", "don't", "12", " a"]
)
_MIXED = st.lists(_SNIPPETS | TEXT, max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(_MIXED)
def test_tokens_of_a_text_cut_at_a_border_are_those_of_its_halves(text):
    for tokenizer in (GPT2, BYTE):
        whole = tokenizer.encode(text)
        at = 0
        while (at := tokenizer.border(text, at + 1)) is not None:
            assert 0 < at < len(text)
            assert tokenizer.encode(text[:at]) + tokenizer.encode(text[at:]) == whole


def test_the_config_offers_exactly_the_kinds_in_the_table():
    (field,) = [each for each in dataclasses.fields(DataConfig) if each.name == "tokenizer"]
    assert set(field.metadata["choices"]) == set(_KINDS)


def test_text_is_prepared_with_every_kind_that_does_not_come_with_a_model():
    assert PREPARE_CHOICES == ("gpt2", "byte", "char")
    for name in PREPARE_CHOICES:
        characters = "abc" if needs_characters(name) else None
        tokenizer = make_tokenizer(name, characters)
        assert tokenizer.name == name and tokenizer.decode(tokenizer.encode("cab")) == "cab"
    with pytest.raises(UserError, match="must be one of gpt2, byte, char, not 'bpe'"):
        make_tokenizer("bpe")
