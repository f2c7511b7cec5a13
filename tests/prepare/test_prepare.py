"""Tests of what `prepare` writes, resumes from, recognizes and refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.cli import prepare as command
from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers.tokenizer import make_tokenizer, tokenizer_from_dict

WORDS = ["tokens", "naïve", "日本", "the", "<|endoftext|>", "\n", "a1 b2", "…"]


def make_documents(count=40, words=200):
    rng = np.random.default_rng(7)
    return [
        Document(f"d{i}", " ".join(rng.choice(WORDS, words))) if i % 5 else Document(f"d{i}", "")
        for i in range(count)
    ]


DOCUMENTS = make_documents()


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def stream(folder):
    splits = [open_tokens(folder, split) for split in ("train", "val")]
    return np.concatenate([tokens.read(0, len(tokens)) for tokens in splits])


@pytest.mark.parametrize("name", ["gpt2", "byte", "char"])
def test_stream_is_every_document_after_its_end_of_text(tmp_path, name):
    summary = prepare(DOCUMENTS, name, tmp_path / "out", val_fraction=0.2, tokens_per_shard=999)
    meta = read_meta(tmp_path / "out")
    assert meta is not None
    tokenizer = tokenizer_from_dict(meta["tokenizer"])
    texts = [document.text for document in DOCUMENTS if document.text]
    separator = [] if tokenizer.eot is None else [tokenizer.eot]
    expected = [token for text in texts for token in separator + tokenizer.encode(text)]
    assert stream(tmp_path / "out").tolist() == expected
    splits = meta["splits"]
    assert splits["train"]["tokens"] == int(len(expected) * 0.8)
    assert splits["train"]["bytes"] + splits["val"]["bytes"] == sum(len(t.encode()) for t in texts)
    assert splits["train"]["documents"] + splits["val"]["documents"] == len(texts)
    assert summary["vocab_size"] == tokenizer.vocab_size and not summary["already_prepared"]
    assert not [path for path in files(tmp_path / "out") if path.endswith(".tmp")]


def test_char_split_and_ids_equal_nanogpts(tmp_path):
    text = DOCUMENTS[1].text
    prepare([Document("text", text)], "char", tmp_path / "out")
    characters = sorted(set(text))  # nanoGPT, data/shakespeare_char/prepare.py
    ids = [characters.index(character) for character in text]
    train = open_tokens(tmp_path / "out", "train")
    assert train.read(0, len(train)).tolist() == ids[: int(len(text) * 0.9)]
    val = open_tokens(tmp_path / "out", "val")
    assert val.read(0, len(val)).tolist() == ids[int(len(text) * 0.9) :]


@pytest.mark.parametrize(
    ("name", "more"), [pytest.param("gpt2", (2, 4), marks=pytest.mark.slow), ("char", (2,))]
)
def test_workers_and_work_items_change_nothing(tmp_path, name, more):
    documents = make_documents(200, 200)
    made = []
    for workers, item_bytes in ((1, 1 << 24), *((workers, 50_000) for workers in (1, *more))):
        out = tmp_path / f"{workers} {item_bytes}"
        prepare(documents, name, out, workers=workers, work_item_bytes=item_bytes, val_fraction=0.3)
        made.append(files(out))
    metas = [json.loads(each.pop("meta.json")) for each in made]
    assert all(each == made[0] for each in made)
    assert all(meta == metas[1] for meta in metas[2:])
    assert metas[0]["splits"] == metas[1]["splits"]  # the text's sum is taken over the work items


def test_a_worker_names_the_document_it_cannot_encode(tmp_path):
    documents = [*DOCUMENTS, Document("broken", "\ud800")]
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"broken: .*surrogate"):
            prepare(documents, "gpt2", tmp_path / "out", workers=workers)
    assert not list(tmp_path.iterdir())


def test_same_again_is_already_prepared(tmp_path):
    out = tmp_path / "out"
    prepare(DOCUMENTS, "byte", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = prepare(DOCUMENTS, "byte", out)
    assert again["already_prepared"]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_same_files_again_are_already_prepared_however_they_are_divided(tmp_path):
    for i, document in enumerate(make_documents(12, 300)):
        (tmp_path / f"{i:02}.txt").write_text(document.text)
    corpus = read_inputs([str(tmp_path / "*.txt")])
    out = tmp_path / "out"
    prepare(corpus, "gpt2", out, work_item_bytes=700, workers=2)
    assert prepare(corpus, "gpt2", out)["already_prepared"]
    (tmp_path / "03.txt").write_text("another text")
    with pytest.raises(UserError, match="not the same text"):
        prepare(corpus, "gpt2", out)


def test_a_run_resumes_from_the_work_items_that_are_still_valid(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"text number {i}. " * 60)
    (tmp_path / "6.txt").write_bytes(b"\xff")
    out, lines = tmp_path / "out", []
    corpus = read_inputs([str(tmp_path / "*.txt")])

    def run(to, **settings):
        return prepare(corpus, "gpt2", to, work_item_bytes=1000, log=lines.append, **settings)

    with pytest.raises(UserError, match=r"6\.txt is not UTF-8"):
        run(out)
    assert not out.exists() and not lines
    (tmp_path / "6.txt").write_text("repaired")
    (tmp_path / "2.txt").write_text("written again. " * 60)
    run(out, val_fraction=0.25)
    assert lines == ["resuming: 4 of 6 work items are already encoded"]
    run(tmp_path / "again", val_fraction=0.25)
    assert files(out) == files(tmp_path / "again")
    assert not list(tmp_path.glob(".*"))


def test_incomplete_files_of_a_work_item_are_not_used(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"text number {i}. " * 60)
    (tmp_path / "3.txt").write_bytes(b"\xff")
    corpus = read_inputs([str(tmp_path / "*.txt")])
    with pytest.raises(UserError, match="not UTF-8"):
        prepare(corpus, "byte", tmp_path / "out", work_item_bytes=1000)
    parts = tmp_path / ".out.preparing" / "parts"
    tokens, *_ = parts.glob("*.tokens")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    _, record, *_ = sorted(parts.glob("*.json"), key=lambda path: path.stem == tokens.stem)
    record.write_text("{")
    (parts / "x.tokens.host-1.tmp").write_bytes(b"half")
    (tmp_path / "3.txt").write_text("repaired")
    prepare(corpus, "byte", tmp_path / "out", work_item_bytes=1000)
    prepare(corpus, "byte", tmp_path / "again", work_item_bytes=1000)
    assert files(tmp_path / "out") == files(tmp_path / "again")


@pytest.mark.parametrize("damaged", range(2))
def test_ids_beyond_the_vocabulary_in_a_work_item_are_refused(tmp_path, damaged):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"text number {i}. " * 60)
    (tmp_path / "3.txt").write_bytes(b"\xff")
    corpus = read_inputs([str(tmp_path / "*.txt")])
    with pytest.raises(UserError, match="not UTF-8"):
        prepare(corpus, "byte", tmp_path / "out", work_item_bytes=1000)
    (tmp_path / "3.txt").write_text("repaired")
    tokens = sorted((tmp_path / ".out.preparing" / "parts").glob("*.tokens"))[damaged]
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\x01\x01")  # 257, which is one too large
    with pytest.raises(UserError, match=f"{tokens.name} is damaged: .* token 257, .* 0 to 256"):
        prepare(corpus, "byte", tmp_path / "out", work_item_bytes=1000)
    assert not (tmp_path / "out").exists()
    tokens.unlink()
    prepare(corpus, "byte", tmp_path / "out", work_item_bytes=1000)
    prepare(corpus, "byte", tmp_path / "again", work_item_bytes=1000)
    assert files(tmp_path / "out") == files(tmp_path / "again")


@pytest.mark.parametrize(
    ("documents", "name", "fraction", "named"),
    [
        (DOCUMENTS[:-1], "byte", 0.1, "text"),
        (DOCUMENTS, "char", 0.1, "tokenizer"),
        (DOCUMENTS, "byte", 0.2, "val_fraction"),
    ],
)
def test_other_content_is_never_overwritten(tmp_path, documents, name, fraction, named):
    out = tmp_path / "out"
    prepare(DOCUMENTS, "byte", out)
    before = files(out)
    with pytest.raises(UserError, match=rf"\(not the same {named}\): choose another --out"):
        prepare(documents, name, out, val_fraction=fraction)
    assert files(out) == before


def test_foreign_folders_and_damaged_shards_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="choose another --out"):
        prepare(DOCUMENTS, "byte", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    prepare(DOCUMENTS, "byte", tmp_path / "out")
    with open(tmp_path / "out" / "val_000000.bin", "ab") as file:
        file.write(b"xx")
    with pytest.raises(UserError, match=r"val_000000\.bin is corrupt.* copy it again"):
        prepare(DOCUMENTS, "byte", tmp_path / "out")
    (tmp_path / "out" / "val_000000.bin").unlink()
    with pytest.raises(UserError, match=r"val_000000\.bin is missing: remove the folder"):
        prepare(DOCUMENTS, "byte", tmp_path / "out")


def test_a_shard_whose_tokens_were_changed_is_refused(tmp_path):
    prepare(DOCUMENTS, "byte", tmp_path / "out")
    shard = tmp_path / "out" / "train_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\x01\x00")
    with pytest.raises(UserError, match=r"train_000000\.bin is damaged, because its sha256"):
        prepare(DOCUMENTS, "byte", tmp_path / "out")


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    prepare(DOCUMENTS, "byte", tmp_path / "out", val_fraction=0)
    assert sorted(files(tmp_path / "out")) == ["meta.json", "train_000000.bin"]


def test_a_link_to_a_folder_is_filled_and_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    for target in ("empty", "absent"):
        link = tmp_path / f"{target}_link"
        link.symlink_to(tmp_path / "disk" / target)
    (tmp_path / "disk" / "empty").mkdir()
    for target in ("empty", "absent"):
        for again in (False, True):
            summary = prepare(DOCUMENTS, "byte", tmp_path / f"{target}_link")
            assert summary["already_prepared"] is again
        assert (tmp_path / f"{target}_link").is_symlink()
        assert read_meta(tmp_path / "disk" / target) is not None
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["absent", "empty"]


def test_a_place_that_cannot_be_taken_is_refused_before_any_text_is_read(tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("../loop", "."):
        with pytest.raises(UserError, match=f"--out {name} is "):
            prepare((pytest.fail("was read") for _ in "x"), "byte", name)


def test_settings_out_of_range_are_refused(tmp_path):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"val_fraction": float("nan")}, "val_fraction"),
        ({"workers": 0}, "workers"),
        ({"tokens_per_shard": 0}, "tokens_per_shard"),
    ]
    for arguments, named in cases:
        with pytest.raises(UserError, match=named):
            prepare(DOCUMENTS, "byte", tmp_path / "out", **arguments)
    with pytest.raises(UserError, match="did you mean 'byte'"):
        prepare(DOCUMENTS, "bite", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gpt2", "byte", "char"])
def test_empty_corpus_is_refused(tmp_path, name):
    for documents in ([], [Document("nothing", "")]):
        with pytest.raises(UserError, match="no text"):
            prepare(documents, name, tmp_path / "out")
    with pytest.raises(UserError, match="no train tokens"):
        prepare([Document("one", "x")], "char", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_too_many_characters_for_uint16_are_refused(tmp_path):
    points = [*range(0xD800), *range(0xE000, 0x11000)]
    text = "".join(map(chr, points))
    assert make_tokenizer("char", text).decode(make_tokenizer("char", text).encode(text)) == text
    with pytest.raises(UserError, match=f"{len(points)} tokens.*at most 65536"):
        prepare([Document("all", text)], "char", tmp_path / "out")


def parse(*arguments):
    parser = argparse.ArgumentParser(epilog=command.EXAMPLES)
    command.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_command_prints_one_json_document(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("some text to learn from")
    arguments = ["--input", tmp_path / "text.txt", "--tokenizer", "byte", "--out", tmp_path / "o"]
    assert command.run(parse(*arguments, "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["splits"]["train"]["tokens"] == 21
    assert command.run(parse(*arguments)) == 0
    assert "already prepared" in capsys.readouterr().out


def test_command_wants_exactly_one_source(tmp_path):
    for source in ([], ["--input", "x.txt", "--corpus", "python-stdlib"]):
        with pytest.raises(UserError, match="exactly one of --input"):
            command.run(parse("--out", tmp_path / "out", *source))
