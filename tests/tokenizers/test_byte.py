"""Tests of the tokenizer of plain bytes."""

from __future__ import annotations

from gpt2_jax.tokenizers.byte import ByteTokenizer

BYTE = ByteTokenizer()


def test_the_ids_are_the_bytes_of_utf8():
    assert BYTE.encode("aé") == [97, 0xC3, 0xA9]
    assert (BYTE.vocab_size, BYTE.eot) == (257, 256)


def test_the_end_of_text_decodes_to_nothing():
    assert BYTE.decode([104, 256, 105]) == "hi"


def test_a_text_may_be_cut_anywhere():
    assert BYTE.border("aaaa", 3) == 3 and BYTE.border("aaaa", 4) is None
