"""Tests of what is written for one work item."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.encode import (
    characters_of_item,
    digest_item,
    encode_item,
    read_starts,
    read_totals,
)
from gpt2_jax.prepare.hub import HubItem
from gpt2_jax.prepare.work_items import Document, DocumentsItem, item_key
from gpt2_jax.tokenizers.tokenizer import make_tokenizer

TEXTS = ["naïve 日本 text", "", "one", "<|endoftext|> two\r\n"]
ITEM = DocumentsItem(tuple(Document(f"d{i}", text) for i, text in enumerate(TEXTS)))
TOKENIZERS = [
    make_tokenizer("byte"),
    make_tokenizer("gpt2"),
    make_tokenizer("char", "".join(TEXTS)),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.name)
def test_tokens_are_those_of_every_document_after_its_end_of_text(tmp_path, tokenizer):
    described = json.dumps(tokenizer.to_dict())
    totals = encode_item(ITEM, tokenizer=described, folder=str(tmp_path))
    key = item_key(ITEM, described)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{key}.json", f"{key}.tokens"]
    separator = [] if tokenizer.eot is None else [tokenizer.eot]
    expected = [separator + tokenizer.encode(text) for text in TEXTS if text]
    tokens = np.fromfile(tmp_path / f"{key}.tokens", "<u2")
    assert tokens.tolist() == [token for each in expected for token in each]
    assert totals.tokens == len(tokens) and totals.documents == len(expected)
    assert totals.bytes == len("".join(TEXTS).encode())
    assert totals == read_totals(tmp_path, key)
    starts = np.cumsum([0, *map(len, expected)])[:-1]
    assert read_starts(tmp_path, key).tolist() == starts.tolist()
    assert digest_item(ITEM, tokenizer=described) == totals.sha256


def test_the_sum_depends_on_where_documents_begin(tmp_path):
    described = json.dumps({"name": "byte"})
    items = [
        DocumentsItem(tuple(Document("d", text) for text in texts))
        for texts in (("ab", "c"), ("a", "bc"), ("abc",))
    ]
    assert len({digest_item(item, tokenizer=described) for item in items}) == 3
    renamed = DocumentsItem((Document("other", "abc"),))
    assert digest_item(items[2], tokenizer=described) == digest_item(renamed, tokenizer=described)


def test_the_sum_of_a_pinned_item_needs_no_reading():
    item = HubItem("me/texts", "small", "train", "abc123", "text", 1, 3)
    assert digest_item(item, tokenizer="{}") == (
        "df17988262d1cfa6488a9e097037cd25bc163d0a29bea25843770116ff5d6e40"
    )


def test_incomplete_files_have_no_totals(tmp_path):
    described = json.dumps({"name": "byte"})
    encode_item(ITEM, tokenizer=described, folder=str(tmp_path))
    key = item_key(ITEM, described)
    assert read_totals(tmp_path, "other") is None
    tokens, record = tmp_path / f"{key}.tokens", tmp_path / f"{key}.json"
    content = tokens.read_bytes()
    tokens.write_bytes(content[:-2])
    assert read_totals(tmp_path, key) is None
    tokens.write_bytes(content)
    assert read_totals(tmp_path, key) is not None
    for damaged in ("", "{", "[]", '{"tokens": 3}'):
        record.write_text(damaged)
        assert read_totals(tmp_path, key) is None


def test_a_text_that_cannot_be_encoded_is_named_and_leaves_nothing(tmp_path):
    item = DocumentsItem((Document("fine", "text"), Document("broken", "\ud800")))
    with pytest.raises(UserError, match=r"^broken: the text has a lone surrogate"):
        encode_item(item, tokenizer=json.dumps({"name": "byte"}), folder=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_characters_are_those_of_all_documents():
    assert characters_of_item(ITEM) == "".join(sorted(set("".join(TEXTS))))
