"""Tests of which files `--input` stands for, and in which order."""

from __future__ import annotations

import gzip

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.inputs import read_inputs
from tests.prepare.reading import read
from tests.prepare.samples import KINDS, write


def texts_of(*arguments, **settings):
    return [document.text for document in read(read_inputs(*arguments, **settings))]


def test_inputs_keep_bytes_and_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in {"c.txt": "c\r\n", "a.txt": "ä", "b/z.txt": "z", "b/no.md": "no"}.items():
        (tmp_path / name).write_bytes(content.encode())
    assert texts_of([tmp_path / "b" / "no.md", tmp_path]) == ["no", "ä", "z", "c\r\n"]
    again = [tmp_path / "a.txt", tmp_path, tmp_path / "b" / ".." / "a.txt"]
    assert texts_of(again) == ["ä", "z", "c\r\n"]


def test_patterns_match_files_in_sorted_order_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/two.txt", "b/deep/one.txt", "a.txt", "a.md", "[odd].txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert texts_of(["**/*.txt"]) == ["[odd].txt", "a.txt", "b/deep/one.txt", "b/two.txt"]
    assert texts_of(["b/*.txt", "**/t*.txt", "a.??"]) == ["b/two.txt", "a.md"]
    assert texts_of(["[odd].txt"]) == ["[odd].txt"], "the name of a file is not a pattern"
    with pytest.raises(UserError, match=r"\*\.nothing matches no file"):
        read_inputs(["**/*.nothing"])


def test_folders_give_every_format_and_nothing_else(tmp_path):
    for kind in KINDS:
        write(tmp_path / f"{kind[::-1]}.{kind}", [kind])
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"txt.gz", mtime=0))
    for name in ("README.md", "info.json", "x.bin", "odd.gz"):
        (tmp_path / name).write_bytes(b"\xff")
    assert sorted(texts_of([tmp_path])) == sorted([*KINDS, "txt.gz"])


def test_input_mistakes_name_the_path(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_inputs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"without any \*\.txt"):
        read_inputs([tmp_path])
    with pytest.raises(UserError, match="--input is empty"):
        read_inputs([])
    with pytest.raises(UserError, match="empty path"):
        read_inputs([""])
