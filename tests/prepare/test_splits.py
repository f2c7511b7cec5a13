"""Tests shards whose splits are given."""

from __future__ import annotations

import pytest

from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.splits import prepare_splits
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers.byte import ByteTokenizer

SPLITS = {"train": ["one", "two"], "val": ["three"], "test": ["four", "five"]}


def _documents(splits):
    return {name: [Document(text, text) for text in texts] for name, texts in splits.items()}


def test_each_split_has_its_documents(tmp_path):
    known = ByteTokenizer()
    summary = prepare_splits(_documents(SPLITS), known, tmp_path / "out", corpus="numbers")
    assert {name: each["documents"] for name, each in summary["splits"].items()} == {
        "train": 2,
        "val": 1,
        "test": 2,
    }
    for name, texts in SPLITS.items():
        tokens = open_tokens(tmp_path / "out", name)
        expected = [token for text in texts for token in (known.eot, *known.encode(text))]
        assert tokens.read(0, len(tokens)).tolist() == expected
    assert read_meta(tmp_path / "out")["source"]["corpus"] == "numbers"


def test_the_same_is_recognized_and_anything_else_refused(tmp_path):
    out, known = tmp_path / "out", ByteTokenizer()
    first = prepare_splits(_documents(SPLITS), known, out, corpus="numbers")
    again = prepare_splits(_documents(SPLITS), known, out, corpus="numbers")
    assert again["already_prepared"] and again["splits"] == first["splits"]
    moved = {"train": ["one"], "val": ["two", "three"], "test": ["four", "five"]}
    with pytest.raises(UserError, match="already holds other data"):
        prepare_splits(_documents(moved), known, out, corpus="numbers")
    (out / "test_000000.bin").write_bytes(b"")
    with pytest.raises(UserError):
        prepare_splits(_documents(SPLITS), known, out, corpus="numbers")
