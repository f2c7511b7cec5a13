"""Tests of the named corpora."""

from __future__ import annotations

import ast
import io
import os
import sysconfig
import urllib.error
from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import corpora
from gpt2_jax.prepare.corpora import get_corpus
from gpt2_jax.prepare.work_items import Document
from tests.prepare.reading import read


def stdlib():
    """The corpus, with names relative to the library's folder."""
    root = sysconfig.get_path("stdlib") + "/"
    documents = read(get_corpus("python-stdlib"))
    return [Document(each.name.removeprefix(root), each.text) for each in documents]


def test_stdlib_is_fixed_and_free_of_tests():
    first, second = stdlib(), stdlib()
    assert first == second
    names = [document.name for document in first]
    assert len(set(names)) == len(names)
    assert {"argparse.py", "json/decoder.py", "email/message.py"} <= set(names)
    excluded = ("test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__")
    assert not [name for name in names if set(name.split("/")) & set(excluded)]
    assert not [name for name in names if "_sysconfigdata" in name]
    assert 9e6 < sum(len(document.text.encode()) for document in first) < 13e6
    ast.parse(first[0].text)


def test_end_of_stdlib_mixes_packages():
    documents = stdlib()
    sizes = [len(document.text) for document in documents]
    tail, seen = {}, 0
    for document, size in zip(documents, sizes, strict=True):
        seen += size
        if seen > 0.9 * sum(sizes):
            package = document.name.split("/")[0]
            tail[package] = tail.get(package, 0) + size
    assert len(tail) > 10
    assert max(tail.values()) < 0.3 * sum(tail.values())


def test_stdlib_skips_modules_that_a_python_lacks(tmp_path):
    (tmp_path / "json").mkdir()
    for name in ("json/decoder.py", "abc.py", "not_listed.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "json" / "tests").mkdir()
    (tmp_path / "json" / "tests" / "test_it.py").write_text("")
    files = {path.as_posix() for path in corpora._stdlib_files(tmp_path)}
    assert files == {"json/decoder.py", "abc.py"}


def test_unknown_corpus_suggests():
    with pytest.raises(UserError, match="did you mean 'tinyshakespeare'"):
        get_corpus("tinyshakespear")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GPT2_JAX_DATA", raising=False)
    return tmp_path


def serve(monkeypatch, answer):
    def urlopen(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr(corpora.urllib.request, "urlopen", urlopen)


def test_no_network_is_one_line_with_a_way_out(home, monkeypatch):
    serve(monkeypatch, urllib.error.URLError("no route"))
    with pytest.raises(UserError, match=r"GPT2_JAX_DATA.*--input") as error:
        read(get_corpus("tinyshakespeare"))
    assert "\n" not in str(error.value)


def test_download_is_kept_only_when_its_sum_is_right(home, monkeypatch):
    serve(monkeypatch, b"something else")
    with pytest.raises(UserError, match="another sha256"):
        read(get_corpus("tinyshakespeare"))
    assert not [path for path in home.rglob("*") if path.is_file()]
    monkeypatch.setattr(
        corpora, "_TINYSHAKESPEARE_SHA256", corpora.hashlib.sha256(b"First").hexdigest()
    )
    serve(monkeypatch, b"First")
    assert [document.text for document in read(get_corpus("tinyshakespeare"))] == ["First"]
    serve(monkeypatch, urllib.error.URLError("no route"))
    assert [document.text for document in read(get_corpus("tinyshakespeare"))] == ["First"]
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["tinyshakespeare.txt"]


def test_data_folder_file_is_checked(home, monkeypatch):
    monkeypatch.setenv("GPT2_JAX_DATA", str(home))
    (home / "tinyshakespeare.txt").write_text("not it")
    with pytest.raises(UserError, match="sha256 differs"):
        read(get_corpus("tinyshakespeare"))


@pytest.mark.external_data
def test_real_tinyshakespeare():
    folder = os.environ.get("GPT2_JAX_DATA", "")
    candidates = (Path(folder, "tinyshakespeare.txt"), Path(folder, "text", "tinyshakespeare.txt"))
    if not folder or not any(path.is_file() for path in candidates):
        pytest.skip("GPT2_JAX_DATA names no folder with tinyshakespeare.txt")
    (document,) = read(get_corpus("tinyshakespeare"))
    assert len(document.text) == 1_115_394
    assert document.text.startswith("First Citizen:")
