"""Tests of JSON lines: how lines are named and what is refused."""

from __future__ import annotations

import json

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import json_lines
from gpt2_jax.prepare.inputs import read_inputs
from tests.prepare.reading import read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3, is not JSON: Expecting"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"txt": "b"}',
            "line 2, has no field 'text' (its fields: txt)",
        ),
        (
            "a.jsonl",
            json.dumps({f"field_{i}": "" for i in range(20)}).encode(),
            "field_6, field_7, field...); name it with --text_field",
        ),
        ("a.jsonl", b'[{"text": "a"}, {"text": "b"}]', "line 1, begins a JSON array: write one"),
        ("a.jsonl", b'[\n{"text": "a"}\n]', "line 1, begins a JSON array: write one object per"),
        ("a.json", b'{\n"text": "a"\n}', "line 1, is not JSON: Expecting property name"),
        ("a.json", b'{\n"text": "a"\n}', "; each line must be a complete object"),
        ("a.jsonl", b'"text"', "line 1, is 'text': each line must be an object"),
        ("a.jsonl", b'{"text": null}', "line 1, has None as 'text', which must be a string"),
        (
            "a.jsonl",
            json.dumps({"text": ["word"] * 20}).encode(),
            "has ['word', 'word', 'word', 'word', 'wor... as 'text'",
        ),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl, line 1, is not UTF-8 at its byte 10"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(read_inputs([tmp_path / name]))
    assert message in str(error.value) and name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    lines = b"".join(b'{"text": "number %d"}\n' % i for i in range(50))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    for item_bytes in (1 << 20, 200):
        documents = read(read_inputs([tmp_path / "marked.jsonl"]), item_bytes)
        assert [document.text for document in documents] == [f"number {i}" for i in range(50)]


def test_a_bad_line_in_the_middle_of_a_big_file_is_named_by_its_byte(tmp_path):
    good = b'{"text": "some words"}\n'
    (tmp_path / "a.jsonl").write_bytes(good * 50 + b"oops\n" + good * 50)
    with pytest.raises(UserError, match=f"the line at byte {50 * len(good)}, is not JSON"):
        read(read_inputs([tmp_path / "a.jsonl"]), 500)


def test_a_line_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "_LONGEST_LINE", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"x" * (1 << 20) + b'"}\n')
    with pytest.raises(UserError, match="line 1, is longer than 1 MiB: divide it"):
        read(read_inputs([tmp_path / "a.jsonl"]))
