"""Tests that texts are cut into pieces without changing their tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.prepare import pieces
from gpt2_jax.prepare.pieces import first_border, split_documents, split_text
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer

GPT2 = GPT2Tokenizer()
TEXT = st.text(st.sampled_from("aZ 1.\n'é日"), max_size=200)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "_PIECE", 10)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=6))
def test_the_tokens_of_the_pieces_are_those_of_the_text(texts):
    for tokenizer in (GPT2, ByteTokenizer()):
        cut = list(split_text(texts, tokenizer, "text"))
        assert "".join(cut) == "".join(texts)
        tokens = [token for piece in cut for token in tokenizer.encode(piece)]
        assert tokens == tokenizer.encode("".join(texts))


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=6))
def test_only_the_first_piece_begins_a_document(texts):
    documents = [(str(i), text) for i, text in enumerate(texts)]
    given = list(split_documents(documents, GPT2))
    assert [piece.where for piece in given if piece.begins_document] == [
        name for name, text in documents if text
    ]
    for name, text in documents:
        assert "".join(piece.text for piece in given if piece.where == name) == text


def test_a_border_is_counted_in_bytes():
    assert first_border(["é", "é next"], GPT2, "text") == len("éé".encode())
    assert first_border(["no", "border"], GPT2, "text") is None
