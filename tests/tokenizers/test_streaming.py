"""Tests that tokens decoded one at a time give the text of all of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.streaming import StreamDecoder

GPT2, BYTE = GPT2Tokenizer(), ByteTokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


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
