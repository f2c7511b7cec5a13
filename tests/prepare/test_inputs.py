from __future__ import annotations

import gzip
import json
import os
import sys
import types

import pytest
import zstandard

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import hub, pieces, readers
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers.tokenizer import ByteTokenizer, GPT2Tokenizer
from tests.prepare.formats import KINDS, pack, write
from tests.prepare.reading import read

GPT2 = GPT2Tokenizer()
TEXTS = [f"Document {i}: naïve 日本 text.\r\n" * (i % 7) for i in range(60)]


def found(*arguments, **settings):
    return [document.text for document in read(read_inputs(*arguments, **settings))]


# Which files, and in which order.


def test_inputs_keep_bytes_and_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in {"c.txt": "c\r\n", "a.txt": "ä", "b/z.txt": "z", "b/no.md": "no"}.items():
        (tmp_path / name).write_bytes(content.encode())
    assert found([tmp_path / "b" / "no.md", tmp_path]) == ["no", "ä", "z", "c\r\n"]
    again = [tmp_path / "a.txt", tmp_path, tmp_path / "b" / ".." / "a.txt"]
    assert found(again) == ["ä", "z", "c\r\n"]


def test_patterns_match_files_in_sorted_order_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/two.txt", "b/deep/one.txt", "a.txt", "a.md", "[odd].txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert found(["**/*.txt"]) == ["[odd].txt", "a.txt", "b/deep/one.txt", "b/two.txt"]
    assert found(["b/*.txt", "**/t*.txt", "a.??"]) == ["b/two.txt", "a.md"]
    assert found(["[odd].txt"]) == ["[odd].txt"], "a file's own name is no pattern"
    with pytest.raises(UserError, match=r"\*\.nothing matches no file"):
        read_inputs(["**/*.nothing"])


def test_folders_give_every_known_format_but_nothing_else(tmp_path):
    for kind in KINDS:
        write(tmp_path / f"{kind[::-1]}.{kind}", [kind])
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"txt.gz", mtime=0))
    for name in ("README.md", "info.json", "x.bin", "odd.gz"):
        (tmp_path / name).write_bytes(b"\xff")
    assert sorted(found([tmp_path])) == sorted([*KINDS, "txt.gz"])


def test_input_mistakes_name_the_path(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_inputs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"without any \*\.txt"):
        read_inputs([tmp_path])
    with pytest.raises(UserError, match="no files"):
        read_inputs([])
    with pytest.raises(UserError, match="empty path"):
        read_inputs([""])


# What is in them.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part_bytes", [1 << 24, 300])
def test_every_format_gives_the_documents(tmp_path, kind, part_bytes):
    path = write(tmp_path / f"x.{kind}", TEXTS, field="content")
    documents = read(read_inputs([path], "content"), part_bytes)
    assert [document.text for document in documents] == [text for text in TEXTS if text]
    assert all(document.name.startswith(f"{path}, ") for document in documents)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("part_bytes", [1 << 24, 999])
def test_a_file_of_text_is_one_document_however_it_is_packed_and_cut(
    tmp_path, monkeypatch, suffix, part_bytes
):
    monkeypatch.setattr(readers, "_BLOCK", 501)  # borders inside characters
    text = "".join(TEXTS)
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack(text.encode(), path.name))
    for tokenizer in (GPT2, ByteTokenizer()):
        corpus = read_inputs([path])
        assert read(corpus, part_bytes, tokenizer) == [Document(str(path), text)]
    count = len(list(read_inputs([path]).parts(part_bytes)))
    assert count == (1 if suffix or part_bytes > 999 else -(-len(text.encode()) // 999))


def test_shards_do_not_depend_on_the_format_nor_on_parts(tmp_path):
    summaries, shards = [], []
    for i, (kind, part_bytes) in enumerate([(KINDS[0], 1 << 24), *((k, 500) for k in KINDS)]):
        path = write(tmp_path / f"{i}.{kind}", TEXTS)
        out = tmp_path / f"out{i}"
        workers = 1 + i % 2
        summary = prepare(read_inputs([path]), "gpt2", out, part_bytes=part_bytes, workers=workers)
        summaries.append(summary["splits"])
        shards.append([(out / f"{split}_000000.bin").read_bytes() for split in ("train", "val")])
    assert all(summary == summaries[0] for summary in summaries)
    assert all(each == shards[0] for each in shards)
    tokens = [token for text in TEXTS if text for token in [50256, *GPT2.encode(text)]]
    assert summaries[0]["train"]["tokens"] + summaries[0]["val"]["tokens"] == len(tokens)


# What is wrong with them.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "caf\u00e9 noir".encode("latin-1"), "is not UTF-8 text: byte 3 is 0xe9"),
        ("a.txt", "cut off é".encode()[:-1], "is not UTF-8 text: byte 8 is 0xc3"),
        (
            "a.txt.gz",
            gzip.compress(b"abc\xff", mtime=0),
            "not UTF-8 text: decompressed byte 3 is 0xff",
        ),
        ("a.txt.gz", gzip.compress(b"abc" * 99, mtime=0)[:-9], "a.txt.gz is damaged or no gz file"),
        ("a.txt.gz", b"plain", "a.txt.gz is damaged or no gz file"),
        ("a.txt.zst", b"plain", "a.txt.zst is damaged or no zst file"),
        (
            "a.txt.zst",
            zstandard.ZstdCompressor().compress(os.urandom(999))[:-9],
            "a.txt.zst is damaged or no zst file: it ends too early",
        ),
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
        ("a.jsonl", b'[\n{"text": "a"}\n]', "line 1, begins a JSON array: write one object a"),
        ("a.json", b'{\n"text": "a"\n}', "line 1, is not JSON: Expecting property name"),
        ("a.json", b'{\n"text": "a"\n}', "; each line must be a whole object"),
        ("a.jsonl", b'"text"', "line 1, is 'text': each line must be an object"),
        ("a.jsonl", b'{"text": null}', "line 1, has None as 'text', which must be a text"),
        (
            "a.jsonl",
            json.dumps({"text": ["word"] * 20}).encode(),
            "has ['word', 'word', 'word', 'word', 'wor... as 'text'",
        ),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl, line 1, is not UTF-8: its byte 10"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: the text has a lone surrogate"),
        ("a.parquet", b"PAR1 not really PAR1", "a.parquet is damaged or no Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        prepare(read_inputs([tmp_path / name]), "gpt2", tmp_path / "out", val_fraction=0)
    assert said in str(error.value) and name in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_byte_order_mark_before_json_lines_is_none_of_the_text(tmp_path):
    lines = b"".join(b'{"text": "number %d"}\n' % i for i in range(50))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    for part_bytes in (1 << 20, 200):
        documents = read(read_inputs([tmp_path / "marked.jsonl"]), part_bytes)
        assert [document.text for document in documents] == [f"number {i}" for i in range(50)]


def test_a_bad_line_in_the_middle_of_a_big_file_is_named_by_its_byte(tmp_path):
    good = b'{"text": "some words"}\n'
    (tmp_path / "a.jsonl").write_bytes(good * 50 + b"oops\n" + good * 50)
    with pytest.raises(UserError, match=f"the line at byte {50 * len(good)}, is not JSON"):
        read(read_inputs([tmp_path / "a.jsonl"]), 500)


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path / "a.parquet", TEXTS)
    with pytest.raises(UserError, match=r"no column 'body' \(it has id, text\).*--text_field"):
        found([path], text_field="body")


def test_text_without_a_place_to_cut_is_refused_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_LONGEST_PIECE", 5000)
    monkeypatch.setattr(pieces, "_PIECE", 100)
    path = tmp_path / "a.txt"
    path.write_text("word " * 100 + "x" * 6000 + " word" * 100)
    for part_bytes in (1 << 24, 1000):
        with pytest.raises(UserError, match=r"a\.txt .*more than 5,000 characters without"):
            read(read_inputs([path]), part_bytes, GPT2)
    (document,) = read(read_inputs([path]), 1000, ByteTokenizer())
    assert document.text == path.read_text()
    path.write_text("word " * 100 + "x" * 4000 + " word" * 100)
    (document,) = read(read_inputs([path]), 1000, GPT2)
    assert document.text == path.read_text()


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl.zst", TEXTS)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(
        UserError, match=r"zst needs the data extra: pip install 'gpt2_jax\[data\]'"
    ):
        found([tmp_path / "a.jsonl.zst"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the hub extra"):
        list(read_inputs([f"hub:{tmp_path}"]).parts(1))


# The hub.


class Rows(list):
    """As much of a streamed data set as is looked at: each file's rows."""

    num_shards = property(len)

    def shard(self, num_shards, index):
        assert num_shards == len(self)
        return iter(self[index])


@pytest.fixture
def served(monkeypatch):
    """A hub with one data set of three files; what it was asked for."""
    asked = []
    files = [[{"text": text, "id": 0} for text in TEXTS[i * 20 : i * 20 + 20]] for i in range(3)]

    def load_dataset(*names, **settings):
        asked.append((names, settings))
        if names[0] != "me/texts":
            raise FileNotFoundError("no such data set\non the hub")
        return Rows(files)

    info = types.SimpleNamespace(sha="abc123")
    api = types.SimpleNamespace(dataset_info=lambda name: info)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    client = types.SimpleNamespace(HfApi=lambda: api)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return asked


def test_a_data_set_of_the_hub_is_a_part_a_file_at_one_revision(served, tmp_path):
    corpus = read_inputs(["hub:me/texts:small"])
    assert [document.text for document in read(corpus)] == [text for text in TEXTS if text]
    names, settings = served[-1]
    assert names == ("me/texts", "small")
    assert settings == {"split": "train", "streaming": True, "revision": "abc123"}
    assert len(list(corpus.parts(1))) == 3
    prepare(corpus, "byte", tmp_path / "out")
    asked = len(served)
    assert prepare(corpus, "byte", tmp_path / "out")["already_prepared"]
    assert len(served) == asked + 1, "only the list of files is asked for again"


def test_what_is_wrong_with_a_data_set_is_one_line(served):
    with pytest.raises(UserError, match=r"cannot open hub:me/text: FileNotFoundError: no such"):
        list(read_inputs(["hub:me/text"]).parts(1))
    with pytest.raises(UserError, match="a data set is hub:OWNER/NAME"):
        list(read_inputs(["hub:a:b:c:d"]).parts(1))
    with pytest.raises(UserError, match=r"row 0, has no column 'body' \(it has text, id\)"):
        read(read_inputs(["hub:me/texts"], "body"))


@pytest.mark.ray
def test_a_real_data_set_in_the_hubs_layout(tmp_path):
    for i in range(3):
        write(tmp_path / f"train-0000{i}-of-00003.parquet", TEXTS[i * 20 : i * 20 + 20])
    parts = hub.hub_parts(f"hub:{tmp_path}", "text")
    assert [part.count for part in parts] == [3, 3, 3]
    documents = read(read_inputs([f"hub:{tmp_path}"]))
    assert [document.text for document in documents] == [text for text in TEXTS if text]
