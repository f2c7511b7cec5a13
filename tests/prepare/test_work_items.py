"""Tests of how a corpus is divided, and of the keys of its work items."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.prepare.hub import HubItem
from gpt2_jax.prepare.slices import Slice
from gpt2_jax.prepare.work_items import (
    Document,
    DocumentsItem,
    FilesItem,
    documents_items,
    files_items,
    item_key,
)
from gpt2_jax.tokenizers.byte import ByteTokenizer

BYTE = json.dumps({"name": "byte"})
TEXT = Slice("/data/a.txt", "text", "", 12345, 67890, 100, 200)
JSON_LINES = Slice("/data/a.jsonl.gz", "jsonl", "gz", 5, 6)


def test_keys_never_change():
    """Recorded: with another key, a run would not resume from what an earlier version encoded."""
    for item, key in (
        (FilesItem((TEXT,), "text"), "87c26de30be0afed7f26cd74627c25ac"),
        (FilesItem((JSON_LINES,), "text"), "3088bfa8850d6128bb3836a06fd10f7e"),
        (FilesItem((TEXT, JSON_LINES), "content"), "5a0f94b7c3ecb788e1971de86f0794ac"),
        (
            FilesItem((Slice("/data/a.txt.zst", "text", "zst", 5, 6),), "text"),
            "2f0ae6b78a72960895e962f06b05b906",
        ),
        (
            FilesItem((Slice("/data/a.parquet", "parquet", "", 5, 6, 2, 3),), "text"),
            "92fa24a24c96d4c3c19c9adacce18389",
        ),
        (
            DocumentsItem((Document("a", "text"), Document("b", "é"))),
            "6276a596312913285acb078c7794b3ed",
        ),
        (
            HubItem("me/texts", "small", "train", "abc123", "text", 1, 3),
            "54e57358e5cb5ed1f891575d65b23977",
        ),
    ):
        assert item_key(item, BYTE) == key


def test_a_key_depends_on_the_tokenizer_and_on_the_content():
    items = [DocumentsItem((Document("a", text),)) for text in ("text", "texts")]
    keys = {item_key(item, tokenizer) for item in items for tokenizer in (BYTE, "{}")}
    assert len(keys) == 4


@given(st.lists(st.text(max_size=9), max_size=20), st.integers(1, 40))
def test_documents_keep_their_order_in_work_items_of_the_size(texts, item_bytes):
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    items = list(documents_items(documents, item_bytes))
    assert [each for item in items for each in item.documents] == documents
    for item in items:
        size = sum(len(each.text) for each in item.documents)
        assert size <= item_bytes or len(item.documents) == 1


def test_small_files_share_a_work_item_and_big_ones_are_split(tmp_path):
    sizes = [10, 20, 30, 250, 10, 95]
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}.txt").write_text(str(i) * size)
    files = [tmp_path / f"{i}.txt" for i in range(len(sizes))]
    items = list(files_items(files, 100, "text"))
    texts = ["".join(piece.text for piece in item.pieces(ByteTokenizer())) for item in items]
    assert "".join(texts) == "".join(str(i) * size for i, size in enumerate(sizes))
    assert max(map(len, texts)) <= 100
    assert texts[0].startswith("0" * 10 + "1" * 20 + "2" * 30)
