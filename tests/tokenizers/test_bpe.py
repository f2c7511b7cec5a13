"""Tests of GPT-2's byte-pair encoding and of the borders between its words."""

from __future__ import annotations

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers import vocabulary
from gpt2_jax.tokenizers.bpe import BPETokenizer, GPT2Tokenizer
from gpt2_jax.tokenizers.vocabulary import gpt2_vocabulary

GPT2 = GPT2Tokenizer()


def test_gpt2_ids_are_openais():
    # From OpenAI's encoder.json: "Hello", ",", " world", "!".
    assert GPT2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert (GPT2.vocab_size, GPT2.eot) == (50257, 50256)


def test_borders_are_found_wherever_prose_has_them():
    text = "It is,\nthey say, 日本 a truth: don't you\r\nthink? 1234abc x==y"
    borders, at = [], 0
    while (at := GPT2.border(text, at + 1)) is not None:
        borders.append(at)
    spaces = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()]
    assert set(spaces) <= set(borders)
    assert GPT2.border("aaaa", 1) is None and GPT2.border(" \n ", 1) is None
    assert GPT2.border("'s", 1) is None, "an apostrophe and letters after it may be one token"
    assert GPT2.border("ab cd", 2) == 2 and GPT2.border("ab cd", 3) is None


def test_literal_end_of_text_is_plain_text():
    assert GPT2.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert GPT2.decode([50256]) == "<|endoftext|>"


def test_a_padded_vocabulary_has_ids_without_text():
    padded = GPT2Tokenizer(50304)
    assert padded.to_dict() == {"name": "gpt2", "vocab_size": 50304}
    assert padded.decode([31373, 50303]) == "hello"
    assert padded.byte_lengths()[50256:].sum() == 0


# What Python, Unicode or nobody calls white space.
SPACES = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()] + list(
    "\u180e\u200b\ufeff"
)


def in_parts(text):
    """The tokens of the text, which is cut in each run of white space that is longer than one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_LONG_RUN", 1)
        parts = vocabulary.without_long_runs(text)
        assert "".join(parts) == text
        return GPT2.encode(text), len(parts)


def whole(text):
    return GPT2._encoding.encode_ordinary(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from([*SPACES, *" \n\t\r" * 6, *"ab1!'s日😀\u0301"]), max_size=60))
def test_cutting_white_space_changes_no_token(text):
    assert in_parts(text)[0] == whole(text)


@pytest.mark.parametrize("space", SPACES, ids=ascii)
def test_every_kind_of_white_space_may_be_cut(space):
    for text in (f"a{space * 5}b", f"{space * 5} b", f"a {space * 5}'s", f" {space}1", space * 5):
        assert in_parts(text)[0] == whole(text)
    assert in_parts("a  \n b c d  ")[1] == 4


@pytest.mark.parametrize("end", ["x", "", " x"], ids=["word", "end", "space"])
@pytest.mark.parametrize("space", [" ", "\n", " \n", "\u3000"], ids=ascii)
def test_a_million_characters_of_white_space_are_encoded(space, end):
    text = f"a{space * (1_100_000 // len(space))}{end}"
    ids = GPT2.encode_array(text)
    assert GPT2.decode(ids) == text
    if "\n" in space or end == "":
        return
    # Each word of the same characters has the same tokens, however long it is.
    short = GPT2.encode(f"a{space * 10_001}{end}")
    assert ids[-2:].tolist() == short[-2:] and ids[:2].tolist() == short[:2]


@pytest.mark.parametrize("unit", ["a", "7", "!", "日", "😀", "ab1!", "\u0301", "e\u0301", "'s"])
def test_long_runs_of_anything_take_time_in_proportion(unit):
    GPT2.encode_array(unit * 1000)
    seconds = []
    for count in (50_000, 400_000):
        text = unit * (count // len(unit))
        began = time.process_time()
        ids = GPT2.encode_array(text)
        seconds.append(time.process_time() - began)
        assert GPT2.decode(ids) == text
    # In time that grows with the square, this would take 64 times as long.
    assert seconds[1] < 30 * seconds[0] + 0.5


def test_what_begins_and_ends_a_text_is_the_end_of_text_unless_said_otherwise() -> None:
    gpt2 = gpt2_vocabulary()
    plain = BPETokenizer(gpt2, 50256)
    assert (plain.bos, plain.ends) == (50256, {50256})
    assert not {"bos", "ends"} & plain.to_dict().keys()
    other = BPETokenizer(gpt2, 50256, bos=5, ends=[7, 50256])
    again = BPETokenizer.from_dict(json.loads(json.dumps(other.to_dict())))
    assert (again.bos, again.ends, again.eot) == (5, {7, 50256}, 50256)
    assert BPETokenizer(gpt2, 50256, ends=[]).ends == frozenset()
    with pytest.raises(UserError, match="do not fit"):
        BPETokenizer(gpt2, 50256, ends=[50257])
