"""Tests of the table of input formats: how files are recognized, and what all formats share."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.data.meta import read_meta
from gpt2_jax.errors import UserError
from gpt2_jax.prepare import formats
from gpt2_jax.prepare.compression import COMPRESSIONS
from gpt2_jax.prepare.formats import FORMATS, read_slice, slices_of
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.prepare.reading import read
from tests.prepare.samples import COMPRESS, KINDS, WRITERS, pack, write

GPT2 = GPT2Tokenizer()
TEXTS = [f"Document {i}: naïve 日本 text.\r\n" * (i % 7) for i in range(60)]
# The first digits of the sums of TEXTS, in source, train and val: the sums by which data that was
# prepared by any earlier version is recognized.
SUMS = {
    ("txt", 1 << 24, "byte"): ("946d4d9bcfc92fe1", "886b4f8a6059260b", "586e4a27f3b45841"),
    ("txt", 1 << 24, "char"): ("946d4d9bcfc92fe1", "58e6b611abdd0634", "70430b03c72d94ca"),
    ("txt", 999, "byte"): ("58afb918541ce360", "886b4f8a6059260b", "586e4a27f3b45841"),
    ("txt", 999, "gpt2"): ("f95233114fe60fda", "e135589f78d80f9a", "cd11505a2d434af0"),
    ("txt.gz", 1, "gpt2"): ("946d4d9bcfc92fe1", "e135589f78d80f9a", "cd11505a2d434af0"),
    ("jsonl", 1 << 24, "byte"): ("3a147122a5cec32e", "1e9cfbd7e98a82d3", "e3b807e58c1a7f62"),
    ("jsonl", 300, "gpt2"): ("0d4ba18b6a7077b0", "a4a7028236f64e37", "bca89bcadba6bce6"),
    ("jsonl", 300, "char"): ("0d4ba18b6a7077b0", "58e6b611abdd0634", "70430b03c72d94ca"),
    ("jsonl.zst", 1, "byte"): ("3a147122a5cec32e", "1e9cfbd7e98a82d3", "e3b807e58c1a7f62"),
    ("parquet", 1 << 24, "gpt2"): ("3a147122a5cec32e", "a4a7028236f64e37", "bca89bcadba6bce6"),
    ("parquet", 1, "byte"): ("8cd446371344b80a", "1e9cfbd7e98a82d3", "e3b807e58c1a7f62"),
}


def make(path, texts):
    """Writes the texts, as one document if the file is plain text."""
    if path.name.startswith("a.txt"):
        path.write_bytes(pack("".join(texts).encode(), path.name))
        return path
    return write(path, texts)


@pytest.mark.parametrize(("kind", "item_bytes", "tokenizer"), SUMS)
def test_sums_never_change(tmp_path, kind, item_bytes, tokenizer):
    path = make(tmp_path / f"a.{kind}", TEXTS)
    prepare(read_inputs([path]), tokenizer, tmp_path / "out", work_item_bytes=item_bytes)
    meta = read_meta(tmp_path / "out")
    assert meta is not None
    sums = [meta["splits"][split]["shards"][0]["sha256"][:16] for split in ("train", "val")]
    assert (meta["source"]["sha256"][:16], *sums) == SUMS[kind, item_bytes, tokenizer]
    assert meta["source"]["part_bytes"] == item_bytes


def test_every_format_has_a_sample_and_a_name_of_its_own():
    assert {each.name for each in FORMATS} == {"text", *WRITERS}
    assert len({each.name for each in FORMATS}) == len(FORMATS)
    suffixes = [suffix for each in FORMATS for suffix in each.suffixes + each.named_suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert not set(suffixes) & set(COMPRESSIONS)
    assert set(COMPRESS) == set(COMPRESSIONS)


def test_help_and_messages_name_every_format(tmp_path):
    with pytest.raises(UserError) as error:
        read_inputs([tmp_path])
    for each in FORMATS:
        assert each.title in formats.describe_formats()
        assert all(f"*{suffix}" in str(error.value) for suffix in each.suffixes)
    for suffix in COMPRESSIONS:
        assert suffix in formats.describe_formats() and suffix in str(error.value)


def test_a_file_with_any_other_name_is_plain_text(tmp_path):
    for name in ("notes.md", "notes", "data.bin", ".txt"):
        (tmp_path / name).write_text("text")
        (document,) = read(read_inputs([tmp_path / name]))
        assert document.text == "text"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("item_bytes", [1 << 24, 300])
def test_every_format_gives_the_documents(tmp_path, kind, item_bytes):
    path = write(tmp_path / f"x.{kind}", TEXTS, field="content")
    documents = read(read_inputs([path], "content"), item_bytes)
    assert [document.text for document in documents] == [text for text in TEXTS if text]
    assert all(document.name.startswith(f"{path}, ") for document in documents)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=30),
    slice_bytes=st.integers(1, 2000),
)
@pytest.mark.parametrize("kind", ["txt", *KINDS])
def test_slices_of_any_size_joined_are_the_whole(tmp_path_factory, kind, texts, slice_bytes):
    path = make(tmp_path_factory.getbasetemp() / f"a.{kind}", texts)
    for tokenizer in (GPT2, ByteTokenizer()):

        def documents(size, tokenizer=tokenizer):
            tokens = []
            for each, _ in slices_of(path, size):
                for piece in read_slice(each, tokenizer, "text"):
                    if piece.begins_document:
                        tokens.append([])
                    tokens[-1] += tokenizer.encode(piece.text)
            return tokens

        expected = ["".join(texts)] if kind == "txt" else texts
        assert documents(slice_bytes) == documents(1 << 30)
        assert documents(1 << 30) == [tokenizer.encode(text) for text in expected if text]


@pytest.mark.slow
def test_shards_do_not_depend_on_the_format_or_the_work_items(tmp_path):
    summaries, shards = [], []
    for i, (kind, item_bytes) in enumerate([(KINDS[0], 1 << 24), *((k, 500) for k in KINDS)]):
        path = write(tmp_path / f"{i}.{kind}", TEXTS)
        out, workers = tmp_path / f"out{i}", 1 + i % 2
        summary = prepare(
            read_inputs([path]), "gpt2", out, work_item_bytes=item_bytes, workers=workers
        )
        summaries.append(summary["splits"])
        shards.append([(out / f"{split}_000000.bin").read_bytes() for split in ("train", "val")])
    assert all(summary == summaries[0] for summary in summaries)
    assert all(each == shards[0] for each in shards)
    tokens = [token for text in TEXTS if text for token in [50256, *GPT2.encode(text)]]
    assert summaries[0]["train"]["tokens"] + summaries[0]["val"]["tokens"] == len(tokens)


def test_a_format_is_added_by_its_entry_alone(tmp_path, monkeypatch):
    def shout(part, tokenizer, text_field):
        for piece in formats.plain_text.read(part, tokenizer, text_field):
            yield piece._replace(text=piece.text.upper())

    loud = dataclasses.replace(
        formats.PLAIN_TEXT, name="loud", suffixes=(".loud",), read=shout, compressible=False
    )
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, loud))
    (tmp_path / "a.loud").write_text("words and more words")
    for item_bytes in (1 << 20, 7):
        (document,) = read(read_inputs([tmp_path / "a.loud"]), item_bytes)
        assert document.text == "WORDS AND MORE WORDS"
    assert "*.loud file" in formats.describe_folder_files()
