"""Tests of data sets of the Hugging Face hub."""

from __future__ import annotations

import sys
import types

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import hub
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from tests.prepare.reading import read
from tests.prepare.samples import write

TEXTS = [f"Document {i}: naïve 日本 text.\r\n" * (i % 7) for i in range(60)]


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the hub extra"):
        list(read_inputs([f"hub:{tmp_path}"]).work_items(1))


class Rows(list):
    """Behaves like a streamed data set as far as `hub` uses one; holds each file's rows."""

    num_shards = property(len)

    def shard(self, num_shards, index):
        assert num_shards == len(self)
        return iter(self[index])


@pytest.fixture
def served(monkeypatch):
    """Serves one data set of three files; gives the list of requests."""
    requests = []
    files = [[{"text": text, "id": 0} for text in TEXTS[i * 20 : i * 20 + 20]] for i in range(3)]

    def load_dataset(*names, **settings):
        requests.append((names, settings))
        if names[0] != "me/texts":
            raise FileNotFoundError("no such data set\non the hub")
        return Rows(files)

    info = types.SimpleNamespace(sha="abc123")
    api = types.SimpleNamespace(dataset_info=lambda name: info)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    client = types.SimpleNamespace(HfApi=lambda: api)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return requests


def test_a_data_set_is_a_work_item_per_file_at_one_revision(served, tmp_path):
    corpus = read_inputs(["hub:me/texts:small"])
    assert [document.text for document in read(corpus)] == [text for text in TEXTS if text]
    names, settings = served[-1]
    assert names == ("me/texts", "small")
    assert settings == {"split": "train", "streaming": True, "revision": "abc123"}
    assert len(list(corpus.work_items(1))) == 3
    prepare(corpus, "byte", tmp_path / "out")
    count = len(served)
    assert prepare(corpus, "byte", tmp_path / "out")["already_prepared"]
    assert len(served) == count + 1, "only the list of files is requested again"


def test_errors_of_a_data_set_are_one_line(served):
    with pytest.raises(UserError, match=r"cannot open hub:me/text: FileNotFoundError: no such"):
        list(read_inputs(["hub:me/text"]).work_items(1))
    with pytest.raises(UserError, match="must have the form hub:OWNER/NAME"):
        list(read_inputs(["hub:a:b:c:d"]).work_items(1))
    with pytest.raises(UserError, match=r"row 0, has no column 'body' \(its columns: text, id\)"):
        read(read_inputs(["hub:me/texts"], "body"))


@pytest.mark.ray
def test_a_real_data_set_in_the_hubs_layout(tmp_path):
    for i in range(3):
        write(tmp_path / f"train-0000{i}-of-00003.parquet", TEXTS[i * 20 : i * 20 + 20])
    items = hub.hub_items(f"hub:{tmp_path}", "text")
    assert [item.count for item in items] == [3, 3, 3]
    documents = read(read_inputs([f"hub:{tmp_path}"]))
    assert [document.text for document in documents] == [text for text in TEXTS if text]
