"""Tests that a file that changes while `prepare` reads it is refused as changed."""

from __future__ import annotations

import os

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import encode, parquet, pieces, plain_text
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from tests.prepare.samples import KINDS, PACKED, pack, write

GPT2 = GPT2Tokenizer()


def test_a_file_that_changes_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("as it was")
    (item,) = read_inputs([path]).work_items(100)
    path.write_text("as it is")
    with pytest.raises(UserError, match=r"a\.txt changed while"):
        list(item.pieces(GPT2))
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: No such file"):
        list(item.pieces(GPT2))


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2 - 1)


def rewrite(path):
    path.write_bytes(b"\xff" * path.stat().st_size)
    os.utime(path, (1e9, 1e9))


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut_off, "changed while"), (rewrite, "changed while"), (remove, "No such file")],
)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind.endswith((".bz2", ".xz")) else [])
        for kind in [*(f"txt{packed}" for packed in PACKED), *KINDS]
    ],
)
def test_a_file_that_changes_in_the_middle_of_a_slice_is_refused_as_changed(
    tmp_path, monkeypatch, kind, damage, message
):
    monkeypatch.setattr(pieces, "_PIECE", 1000)
    monkeypatch.setattr(plain_text, "_BLOCK", 1000)
    # Long and hard to compress, so that no buffer has all of it after the first piece.
    documents = [os.urandom(500).hex() + "é" for _ in range(4000)]
    path = tmp_path / f"a.{kind}"
    if kind.startswith("txt"):
        path.write_bytes(pack(" ".join(documents).encode(), path.name))
    else:
        write(path, documents)
    (item,) = read_inputs([path]).work_items(1 << 30)
    texts = item.pieces(GPT2)
    next(texts)
    damage(path)
    with pytest.raises(UserError, match=rf"a\.{kind}.*{message}"):
        list(texts)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_file_that_changes_between_two_work_items_leaves_out_alone(tmp_path, monkeypatch, kind):
    path, encode_item = tmp_path / f"a.{kind}", encode.encode_item
    documents = [f"Document {i}: some more words. " * 9 for i in range(60)]
    path.write_text("".join(documents)) if kind == "txt" else write(path, documents)

    def then_append(item, **settings):
        totals = encode_item(item, **settings)
        with open(path, "ab") as file:
            file.write(b"x")
        return totals

    with monkeypatch.context() as patched:
        patched.setattr(encode, "encode_item", then_append)
        with pytest.raises(UserError, match=rf"a\.{kind} changed while it was being prepared"):
            prepare(read_inputs([path]), "gpt2", tmp_path / "out", work_item_bytes=2000)
    assert not (tmp_path / "out").exists()
    if kind != "txt":
        write(path, documents)
    prepare(read_inputs([path]), "gpt2", tmp_path / "out", work_item_bytes=2000)
    prepare(read_inputs([path]), "gpt2", tmp_path / "again", work_item_bytes=2000)
    for name in ("train_000000.bin", "val_000000.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_file_that_is_gone_before_it_is_read_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", ["one", "two", "three"] * 9)
    corpus, errors = read_inputs([path]), parquet._arrow_errors

    def once_removed(name):
        path.unlink(missing_ok=True)
        return errors(name)

    monkeypatch.setattr(parquet, "_arrow_errors", once_removed)
    for _ in range(2):  # while its row groups are listed, and before its size is read
        with pytest.raises(UserError, match=r"^cannot read .*a\.parquet: No such file"):
            list(corpus.work_items(100))
