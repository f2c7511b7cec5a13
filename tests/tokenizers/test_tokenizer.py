from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.tokenizer import (
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    StreamDecoder,
    make_tokenizer,
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


def test_gpt2_ids_are_openais():
    # From OpenAI's encoder.json: "Hello", ",", " world", "!".
    assert GPT2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert (GPT2.vocab_size, GPT2.eot) == (50257, 50256)


def test_literal_end_of_text_is_plain_text():
    assert GPT2.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert GPT2.decode([50256]) == "<|endoftext|>"
    assert BYTE.decode([104, 256, 105]) == "hi"


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


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 255)), TEXT)
def test_stream_decoder_pieces_join_to_decode(raw_bytes, text):
    for tokenizer, tokens in ((BYTE, raw_bytes), (BYTE, BYTE.encode(text)), (GPT2, raw_bytes)):
        stream = StreamDecoder(tokenizer)
        pieces = [stream.push(token) for token in tokens] + [stream.finish()]
        assert "".join(pieces) == tokenizer.decode(tokens)


def test_stream_decoder_holds_back_half_a_character():
    stream = StreamDecoder(BYTE)
    assert [stream.push(token) for token in "é!".encode()] == ["", "é", "!"]
    assert stream.finish() == ""
    stream.push(0xC3)
    assert stream.finish() == "\ufffd"


def test_bad_names_and_descriptions_are_refused():
    with pytest.raises(UserError, match="did you mean 'byte'"):
        make_tokenizer("bytes")
    with pytest.raises(UserError, match="characters"):
        make_tokenizer("char")
    wrong: list[Any] = [{}, {"name": 3}, {"name": "char", "characters": 7}, [], None]
    for values in wrong:
        with pytest.raises(UserError, match="tokenizer"):
            tokenizer_from_dict(values)


# Everything that GPT-2's pattern treats in its own way, often together.
_CHARACTERS = "aZäß日9٣½'\u2019_-.,!({ \t\n\r\x0b\x1c\x1f\x85\xa0\u2009\u3000\u200b\u0301😀\x00"
_PARTS = st.sampled_from(
    [*_CHARACTERS, "'s", "'ll", " '", "  ", "\r\n", " \n", "don't", "12", " a"]
)
_MIXED = st.lists(_PARTS | TEXT, max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(_MIXED)
def test_tokens_of_a_text_cut_at_a_border_are_those_of_its_halves(text):
    for tokenizer in (GPT2, BYTE):
        whole = tokenizer.encode(text)
        at = 0
        while (at := tokenizer.border(text, at + 1)) is not None:
            assert 0 < at < len(text)
            assert tokenizer.encode(text[:at]) + tokenizer.encode(text[at:]) == whole


def test_borders_are_found_wherever_prose_has_them():
    text = "It is,\nthey say, 日本 a truth: don't you\r\nthink? 1234abc x==y"
    found, at = [], 0
    while (at := GPT2.border(text, at + 1)) is not None:
        found.append(at)
    spaces = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()]
    assert set(spaces) <= set(found)
    assert GPT2.border("aaaa", 1) is None and GPT2.border(" \n ", 1) is None
    assert GPT2.border("'s", 1) is None, "an apostrophe and what it begins may be one token"
    assert GPT2.border("ab cd", 2) == 2 and GPT2.border("ab cd", 3) is None
    assert BYTE.border("aaaa", 3) == 3 and BYTE.border("aaaa", 4) is None
