"""Tests that rows without valid text are an error, or on request are left out and counted."""

from __future__ import annotations

import json
import sys
import types

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.data.meta import read_meta
from gpt2_jax.errors import UserError
from gpt2_jax.prepare import json_lines
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from tests.prepare.reading import read
from tests.prepare.samples import write

# Lines of JSON -> what an error says of each.
INVALID = {
    b'{"text": null}': "has None as 'text', which must be a string",
    b'{"txt": "b"}': "has no field 'text'",
    b'{"text": ': "is not JSON",
    b'["text"]': "begins a JSON array",
    b'"text"': "each line must be an object",
    b'{"text": "\xff"}': "is not UTF-8",
    b'{"text": "caf\xc3\xa9 \\ud800"}': "has a lone surrogate",
    b'{"text": "' + b"x" * 3000 + b'"}': "is longer than 0 MiB",
}
TEXTS = [f"Document {i} is naïve. " * 3 for i in range(60)]


@pytest.fixture(autouse=True)
def short_lines(monkeypatch):
    monkeypatch.setattr(json_lines, "_LONGEST_LINE", 2000)


def mixed(path, texts=TEXTS):
    """Writes the texts, each after an invalid line, and returns the number of those."""
    invalid = list(INVALID)
    lines = []
    for number, text in enumerate(texts):
        lines += [invalid[number % len(invalid)], json.dumps({"text": text}).encode()]
    path.write_bytes(b"\n".join(lines))
    return len(texts)


@pytest.mark.parametrize("line", INVALID, ids=INVALID.values())
def test_without_the_flag_the_first_is_named_with_its_file_its_line_and_the_flag(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "b"}')
    with pytest.raises(UserError) as error:
        prepare(read_inputs([tmp_path / "a.jsonl"]), "gpt2", tmp_path / "out")
    message = str(error.value)
    assert f"{tmp_path}/a.jsonl, line 2, " in message and INVALID[line] in message
    assert message.endswith("(--skip_invalid leaves such rows out and counts them)")
    assert [each.text for each in read(read_inputs([tmp_path / "a.jsonl"], skip_invalid=True))] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize("tokenizer", ["gpt2", "char"])
@pytest.mark.parametrize("item_bytes", [1 << 24, 500])
def test_the_rest_is_encoded_and_the_rows_are_counted(tmp_path, capsys, item_bytes, tokenizer):
    count = mixed(tmp_path / "a.jsonl")
    write(tmp_path / "b.parquet", ["first", None, None, "last"])
    corpus = read_inputs([tmp_path / "a.jsonl", tmp_path / "b.parquet"], skip_invalid=True)
    summary = prepare(corpus, tokenizer, tmp_path / "out", work_item_bytes=item_bytes)
    assert summary["skipped_rows"] == count + 2
    assert read_meta(tmp_path / "out")["source"]["skipped_rows"] == count + 2

    write(tmp_path / "valid.jsonl", [*TEXTS, "first", "last"])
    prepare(read_inputs([tmp_path / "valid.jsonl"]), tokenizer, tmp_path / "valid")
    for name in ("train_000000.bin", "val_000000.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "valid" / name).read_bytes()
    assert "skipped_rows" not in read_meta(tmp_path / "valid")["source"]

    inputs = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")]
    words = ["prepare", "--tokenizer", tokenizer, "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*words, "--input", *inputs, "--skip_invalid"]) == 0
    out = capsys.readouterr().out
    assert "already prepared" in out and f"invalid rows left out: {count + 2}\n" in out
    assert main([*words, "--input", *inputs]) == 2
    assert "a.jsonl, line 1, has None as 'text'" in capsys.readouterr().err


def test_a_run_that_resumes_counts_what_it_left_out_before(tmp_path):
    count = mixed(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_bytes(b"\xff" * 400)
    lines = []
    corpus = read_inputs([tmp_path], skip_invalid=True)
    settings = {"work_item_bytes": 500, "log": lines.append}
    with pytest.raises(UserError, match=r"b\.txt is not UTF-8"):
        prepare(corpus, "byte", tmp_path / "out", **settings)
    (tmp_path / "b.txt").write_text("repaired " * 50)
    assert prepare(corpus, "byte", tmp_path / "out", **settings)["skipped_rows"] == count
    assert "are already encoded" in lines[0]
    # Without the flag, what was encoded with it is not used.
    with pytest.raises(UserError, match="has None as 'text'"):
        prepare(read_inputs([tmp_path]), "byte", tmp_path / "strict", **settings)


def test_a_record_of_an_earlier_version_is_still_used(tmp_path):
    write(tmp_path / "a.jsonl", TEXTS)
    (tmp_path / "b.txt").write_bytes(b"\xff")
    corpus = read_inputs([tmp_path])
    with pytest.raises(UserError, match=r"b\.txt is not UTF-8"):
        prepare(corpus, "byte", tmp_path / "out", work_item_bytes=500)
    for path in (tmp_path / ".out.preparing" / "parts").glob("*.json"):
        record = json.loads(path.read_text())
        assert record.pop("skipped") == 0
        path.write_text(json.dumps(record))
    (tmp_path / "b.txt").write_text("repaired")
    lines = []
    prepare(corpus, "byte", tmp_path / "out", work_item_bytes=500, log=lines.append)
    assert "are already encoded" in lines[0]


def test_only_invalid_rows_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"txt": "a"}\n' * 3)
    with pytest.raises(UserError, match=r"has no text: .*; all of its 3 rows were invalid"):
        prepare(read_inputs([tmp_path], skip_invalid=True), "byte", tmp_path / "out")


def test_a_parquet_row_that_is_not_utf8_is_one_invalid_row(tmp_path):
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.array([b"good", b"\xff bad", b"fine"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    texts = [each.text for each in read(read_inputs([tmp_path], skip_invalid=True))]
    assert texts == ["good", "fine"]
    with pytest.raises(UserError, match=r"a\.parquet, row 1, is not UTF-8 at byte 0 of 'text'"):
        read(read_inputs([tmp_path]))


def test_rows_of_the_hub_are_left_out_too(tmp_path, monkeypatch):
    class Rows(list):
        num_shards = 1

        def shard(self, num_shards, index):
            return iter(self)

    rows = Rows({"text": text} for text in ("one", None, "two", 3))
    monkeypatch.setitem(
        sys.modules, "datasets", types.SimpleNamespace(load_dataset=lambda *_, **__: rows)
    )
    with pytest.raises(UserError, match=r"row 1, has None as 'text'.*--skip_invalid"):
        prepare(read_inputs([f"hub:{tmp_path}"]), "byte", tmp_path / "out")
    corpus = read_inputs([f"hub:{tmp_path}"], skip_invalid=True)
    assert prepare(corpus, "byte", tmp_path / "out")["skipped_rows"] == 2


def test_the_flag_is_for_rows(tmp_path, capsys):
    words = ["prepare", "--corpus", "python-stdlib", "--out", str(tmp_path / "x")]
    assert main([*words, "--skip_invalid"]) == 2
    assert "a corpus has none" in capsys.readouterr().err
