"""A file that changes or goes away while `prepare` reads it is refused as such, whatever it is."""

from __future__ import annotations

import os

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import encode, pieces, readers, work_items
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.tokenizer import GPT2Tokenizer
from tests.prepare.formats import KINDS, pack, write

GPT2 = GPT2Tokenizer()


def test_a_file_that_changes_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("as it was")
    (part,) = read_inputs([path]).parts(100)
    path.write_text("as it is")
    with pytest.raises(UserError, match=r"a\.txt changed while"):
        list(part.texts(GPT2))
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: No such file"):
        list(part.texts(GPT2))


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2 - 1)


def rewrite(path):
    path.write_bytes(b"\xff" * path.stat().st_size)
    os.utime(path, (1e9, 1e9))


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [(cut_off, "changed while"), (rewrite, "changed while"), (remove, "No such file")],
)
@pytest.mark.parametrize("kind", ["txt", "txt.gz", "txt.zst", *KINDS])
def test_a_file_that_changes_in_the_middle_of_a_slice_is_refused_as_changed(
    tmp_path, monkeypatch, kind, damage, said
):
    monkeypatch.setattr(pieces, "_PIECE", 1000)
    monkeypatch.setattr(readers, "_BLOCK", 1000)
    # Long, and hard to pack: nothing has all of it in a buffer after the first piece.
    documents = [os.urandom(500).hex() + "é" for _ in range(4000)]
    path = tmp_path / f"a.{kind}"
    if kind.startswith("txt"):
        path.write_bytes(pack(" ".join(documents).encode(), path.name))
    else:
        write(path, documents)
    (part,) = read_inputs([path]).parts(1 << 30)
    texts = part.texts(GPT2)
    next(texts)
    damage(path)
    with pytest.raises(UserError, match=rf"a\.{kind}.*{said}"):
        list(texts)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_file_that_changes_between_two_parts_leaves_out_alone(tmp_path, monkeypatch, kind):
    path, encode_part = tmp_path / f"a.{kind}", encode.encode_part
    documents = [f"Document {i}: some more words. " * 9 for i in range(60)]
    path.write_text("".join(documents)) if kind == "txt" else write(path, documents)

    def then_append(part, **settings):
        totals = encode_part(part, **settings)
        with open(path, "ab") as file:
            file.write(b"x")
        return totals

    with monkeypatch.context() as patched:
        patched.setattr(encode, "encode_part", then_append)
        with pytest.raises(UserError, match=rf"a\.{kind} changed while it was being prepared"):
            prepare(read_inputs([path]), "gpt2", tmp_path / "out", part_bytes=2000)
    assert not (tmp_path / "out").exists()
    if kind != "txt":
        write(path, documents)
    prepare(read_inputs([path]), "gpt2", tmp_path / "out", part_bytes=2000)
    prepare(read_inputs([path]), "gpt2", tmp_path / "afresh", part_bytes=2000)
    for name in ("train_000000.bin", "val_000000.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "afresh" / name).read_bytes()


def test_a_file_that_is_gone_before_it_is_read_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", ["one", "two", "three"] * 9)
    corpus, row_groups = read_inputs([path]), work_items.row_groups

    def once_removed(name):
        path.unlink()
        return row_groups(name)

    monkeypatch.setattr(work_items, "row_groups", once_removed)
    for _ in range(2):  # between two looks at it, and before the first
        with pytest.raises(UserError, match=r"^cannot read .*a\.parquet: No such file"):
            list(corpus.parts(100))
