"""Tests of GPT-2's byte-pair encoding and of the borders between its words."""

from __future__ import annotations

import json

import pytest

from gpt2_jax.errors import UserError
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


def test_what_begins_and_ends_a_text_is_the_end_of_text_unless_said_otherwise() -> None:
    vocabulary = gpt2_vocabulary()
    plain = BPETokenizer(vocabulary, 50256)
    assert (plain.bos, plain.ends) == (50256, {50256})
    assert not {"bos", "ends"} & plain.to_dict().keys()
    other = BPETokenizer(vocabulary, 50256, bos=5, ends=[7, 50256])
    again = BPETokenizer.from_dict(json.loads(json.dumps(other.to_dict())))
    assert (again.bos, again.ends, again.eot) == (5, {7, 50256}, 50256)
    assert BPETokenizer(vocabulary, 50256, ends=[]).ends == frozenset()
    with pytest.raises(UserError, match="do not fit"):
        BPETokenizer(vocabulary, 50256, ends=[50257])
