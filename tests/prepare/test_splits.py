"""Tests shards whose splits are given."""

from __future__ import annotations

import pytest

from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare import splits as splits_lib
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


def test_a_run_that_is_stopped_is_resumed_without_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(splits_lib, "WORK_ITEM_BYTES", 4)
    out, known, lines = tmp_path / "out", ByteTokenizer(), []

    def run(to, splits):
        prepare_splits(_documents(splits), known, to, corpus="numbers", log=lines.append)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(splits_lib, "put_in_place", stop)
        with pytest.raises(KeyboardInterrupt, match="encoded work items are kept"):
            run(out, SPLITS)
    assert not out.exists() and not lines
    changed = SPLITS | {"val": ["thirteen"]}
    run(out, changed)
    assert lines == ["resuming: 4 of 5 work items are already encoded"]
    run(tmp_path / "whole", changed)
    contents = [
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (out, tmp_path / "whole")
    ]
    assert contents[0] == contents[1] and len(lines) == 1
    assert not list(tmp_path.glob(".*"))
