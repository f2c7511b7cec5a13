"""Tests load(M): which folders are models, what is read from them, and the errors for others."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import Gpt2JaxError, StorageError, UserError
from gpt2_jax.formats import huggingface
from gpt2_jax.formats.load import load, open_model, write_native
from gpt2_jax.model.build import abstract_params
from gpt2_jax.model.flops import num_params
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.training.workdir import read_run_config
from tests.inference.tiny import make_run, noisy_params, tiny_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("load") / "run", step=7)


def _line(error: pytest.ExceptionInfo[Any]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("within", ["", "checkpoints", "checkpoints/7"])
def test_a_workdir_its_checkpoints_and_a_step_are_the_model(workdir: Path, within: str) -> None:
    loaded = load(str(workdir / within))
    assert loaded.step == 7
    assert loaded.path == workdir / "checkpoints" / "7"
    assert loaded.config == tiny_config()
    assert loaded.tokenizer.name == "byte"
    expected = noisy_params(tiny_config())
    assert jax.tree.structure(loaded.params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)


def test_a_relative_path_is_as_good(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workdir.parent)
    assert load("run").step == 7
    monkeypatch.chdir(workdir / "checkpoints")
    assert load("7").step == 7


@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/7"])
def test_the_current_folder_may_be_the_model(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(workdir / folder)
    assert load(".").step == 7


def test_the_newest_whole_step_is_read_and_an_older_one_by_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", step=2)
    make_run(tmp_path / "run", step=10)
    (run / "checkpoints" / "11").mkdir()
    shutil.copytree(run / "checkpoints" / "2", run / "checkpoints" / "12")
    assert load(run).step == 10
    assert load(run / "checkpoints" / "2").step == 2


def test_the_tokenizer_comes_with_the_model(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("\nabc é")
    run = make_run(tmp_path / "run", tokenizer=tokenizer)
    loaded = load(run)
    assert loaded.tokenizer.encode("\nabc é") == tokenizer.encode("\nabc é")
    assert loaded.config.model.vocab_size == 6


def test_loading_changes_nothing(workdir: Path) -> None:
    before = {str(p): p.stat().st_mtime_ns for p in workdir.rglob("*")}
    load(workdir)
    assert {str(p): p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_abstract_params_are_the_shapes_of_the_parameters() -> None:
    model = tiny_config().model
    leaves = jax.tree.leaves(abstract_params(model))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert sum(leaf.size for leaf in leaves) == num_params(model, padded=True)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_parameters_are_read_onto_the_shapes_asked_for(workdir: Path) -> None:
    with open_model(workdir) as reader:
        assert reader.step == 7 and reader.config == tiny_config()
        params = reader.read_params(abstract_params(tiny_config().model)).params
        jax.tree.map(np.testing.assert_array_equal, params, noisy_params(tiny_config()))
        wider = abstract_params(dataclasses.replace(tiny_config().model, d_model=64))
        with pytest.raises(UserError) as error:
            reader.read_params(wider)
        assert "the config expects" in _line(error)
        deeper = abstract_params(dataclasses.replace(tiny_config().model, num_layers=4))
        with pytest.raises(UserError, match="params leaf h/"):
            reader.read_params(deeper)


def test_a_model_written_alone_is_the_model(workdir: Path, tmp_path: Path) -> None:
    loaded = load(workdir)
    write_native(tmp_path / "alone", loaded)
    again = load(tmp_path / "alone")
    assert (again.config, again.step) == (loaded.config, loaded.step)
    assert again.tokenizer.to_dict() == loaded.tokenizer.to_dict()
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


class _Hub(types.ModuleType):
    """Stands in for huggingface_hub: what was asked of it, and a folder or an error to answer."""

    def __init__(self, answer: Path | Exception) -> None:
        super().__init__("huggingface_hub")
        self.asked: list[Any] = []
        self.answer = answer

    def snapshot_download(self, name: str, **options: Any) -> str:
        self.asked.append((name, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_what_is_no_folder_is_asked_of_the_hub(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(workdir)
    (tmp_path / "snapshot").mkdir()
    huggingface.write(tmp_path / "snapshot", loaded.config.model, loaded.params, loaded.tokenizer)
    hub = _Hub(tmp_path / "snapshot")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    again = load("someone/tiny-gpt2")
    jax.tree.map(np.testing.assert_array_equal, again.params["h"], loaded.params["h"])
    ((name, options),) = hub.asked
    assert name == "someone/tiny-gpt2"
    kept = [file for file in _HUB_LISTING if _wanted(file, **options)]
    assert kept == [
        "config.json", "merges.txt", "model.safetensors", "spiece.model", "tokenizer.json",
        "vocab.txt",
    ]  # fmt: skip
    hub.answer = OSError("no such\nrepository")
    with pytest.raises(UserError) as error:
        load("someone/else")
    assert "hub says: no such repository" in _line(error)
    # A path that can't be an id is not asked for.
    for path in ("/no/such", "./runs/x", "a/b/c"):
        with pytest.raises(UserError, match="no model at"):
            load(path)
    assert [name for name, _ in hub.asked] == ["someone/tiny-gpt2", "someone/else"]


# What openai-community/gpt2 holds, in short, and files by which another tokenizer is recognized.
_HUB_LISTING = [
    "config.json", "flax_model.msgpack", "merges.txt", "model.safetensors", "onnx/config.json",
    "onnx/model.safetensors", "pytorch_model.bin", "spiece.model", "tf_model.h5", "tokenizer.json",
    "vocab.txt",
]  # fmt: skip


def _wanted(file: str, allow_patterns: Any, ignore_patterns: Any) -> bool:
    return any(map(functools.partial(fnmatch.fnmatch, file), allow_patterns)) and not (
        fnmatch.fnmatch(file, ignore_patterns)
    )


def test_without_the_hub_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError) as error:
        load("gpt2")
    assert "pip install 'gpt2_jax[hub]'" in _line(error)


def test_what_is_no_model_says_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "12").mkdir()
    for name in ("missing", "empty", "file", "12"):
        with pytest.raises(UserError) as error:
            load(tmp_path / name)
        assert str(tmp_path / name) in _line(error)
        assert "workdir" in str(error.value)
        assert "step's folder" in str(error.value)


def test_a_run_without_a_checkpoint_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "saved_step").write_text("7\n")
    for make in (lambda: None, (tmp_path / "checkpoints").mkdir):
        make()
        with pytest.raises(StorageError, match="has not saved one yet, or all"):
            load(tmp_path)
        assert main(["doctor", "--model", str(tmp_path)]) == 78
    (tmp_path / "checkpoints" / "5").mkdir()
    with pytest.raises(StorageError, match=r"every checkpoint in .* is damaged \(5: no manifest"):
        load(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "checkpoints",
        "checkpoints/5",
        "saved_step",
    ]


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for path in (run / "checkpoints" / "2" / "meta").rglob("*"):
        if path.is_file():
            path.write_bytes(b"{not json")
    with pytest.raises(StorageError) as error:
        load(run)
    assert "checkpoints is damaged (2: meta/" in _line(error)


def test_a_step_folder_without_meta_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "2" / "meta")
    with pytest.raises(Gpt2JaxError) as error:
        load(run / "checkpoints" / "2")
    assert "checkpoints/2" in _line(error)


def test_the_runs_config_is_read_back(workdir: Path, tmp_path: Path) -> None:
    assert read_run_config(workdir) == tiny_config()
    assert read_run_config(tmp_path) is None
    assert read_run_config(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"3", b"null", b'"text"', b"\xff\xfe", b'{"model": 3}',
     b"[" * 100_000, b'{"modle": {}}', b'{"model": {"num_layers": "2"}}'],
)  # fmt: skip
def test_a_malformed_config_json_is_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_run_config(tmp_path)
    assert str(tmp_path / "config.json") in _line(error)


def test_config_json_of_all_defaults_is_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}), encoding="utf-8")
    assert read_run_config(tmp_path) is not None
