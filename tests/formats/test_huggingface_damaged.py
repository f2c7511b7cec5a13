"""Tests that damaged or unsafe files in Hugging Face's format are refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import load
from tests.formats.huggingface_models import FIXTURES, edit_json, line_of, read_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "inner_gelu", tmp_path / "model")


def _header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites the header of a safetensors file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def _lie(header: dict[str, Any]) -> None:
    header["transformer.ln_f.bias"]["data_offsets"][1] += 4


def _elsewhere(header: dict[str, Any]) -> None:
    header["transformer.ln_f.bias"]["data_offsets"] = [1 << 40, (1 << 40) + 96]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
        lambda path: _header(path, _lie),
        lambda path: _header(path, _elsewhere),
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
    ],
)
def test_a_damaged_file_is_one_line(folder: Path, damage: Callable[[Path], Any]) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert "model.safetensors is not a complete safetensors file" in line_of(error)


def _drop(tensors: dict[str, np.ndarray]) -> None:
    del tensors["transformer.h.1.ln_2.weight"]


def _transpose(tensors: dict[str, np.ndarray]) -> None:
    name = "transformer.h.0.mlp.c_fc.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def _add(tensors: dict[str, np.ndarray]) -> None:
    tensors["score.weight"] = np.zeros((2, 24), np.float32)


def _twice(tensors: dict[str, np.ndarray]) -> None:
    tensors["ln_f.bias"] = np.zeros(24, np.float32)


def _integers(tensors: dict[str, np.ndarray]) -> None:
    tensors["transformer.ln_f.bias"] = np.zeros(24, np.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "does not have the tensor h.1.ln_2.weight"),
        (_transpose, "h.0.mlp.c_fc.weight has the shape [40, 24], but its config requires [24,"),
        (_add, "a tensor that GPT-2 does not have: score.weight"),
        (_twice, "holds ln_f.bias twice"),
        (_integers, "transformer.ln_f.bias has the dtype I8; it must be"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, change: Any, message: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert message in line_of(error)


@pytest.mark.parametrize(
    "file", ["../elsewhere.safetensors", "/etc/passwd", "sub/x.safetensors", "model.bin", ""]
)
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(FIXTURES / "plain", tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=weight_map | {"transformer.wte.weight": file})
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert f"names {file!r}, which is not a file of its folder" in line_of(error)


def test_an_index_that_is_none_or_names_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "plain", tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    moved = weight_map | {"transformer.wte.weight": weight_map["transformer.ln_f.bias"]}
    edit_json(index, weight_map=moved)
    with pytest.raises(UserError, match=r"does not have the tensor transformer\.wte\.weight"):
        read_model(folder)
    edit_json(index, weight_map=weight_map | {"transformer.wte.weight": "gone.safetensors"})
    with pytest.raises(UserError, match=r"gone\.safetensors is not a complete"):
        read_model(folder)
    for content in ("{", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {}}'):
        index.write_text(content)
        with pytest.raises(UserError, match="is not an index of weights"):
            read_model(folder)


def test_a_pickle_is_refused_with_the_way_to_convert_it(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError) as error:
        load(folder)
    # It is found before the tokenizer is missed.
    assert "PyTorch pickle (pytorch_model.bin)" in line_of(error)
    assert "save_pretrained" in line_of(error)


def test_a_folder_without_weights_or_config_is_one_line(folder: Path) -> None:
    for content in ("{", "[]"):
        (folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            read_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        load(folder)
    shutil.copy(FIXTURES / "inner_gelu" / "config.json", folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load(folder)


def test_a_checkpoint_of_nanogpt_is_refused_with_the_place_of_lines_that_convert_it(tmp_path):
    (tmp_path / "ckpt.pt").write_bytes(b"a pickle, which is never opened")
    docs = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    for named in (tmp_path, tmp_path / "ckpt.pt"):
        with pytest.raises(UserError, match=r'docs/formats\.md, "nanoGPT\'s checkpoints"') as error:
            load(named)
        assert "\n" not in str(error.value)
    section = docs[docs.index("## nanoGPT's checkpoints") :]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    compile(code, "docs/formats.md", "exec")


def test_the_lines_for_nanogpt_fill_in_biases_and_never_weights() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    loop = docs[docs.index("transposed = (") : docs.index("model.save_pretrained(")]
    weight, bias = "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"
    stored = {weight: _Tensor(np.arange(6.0).reshape(2, 3)), "ln_f.bias": _Tensor(np.ones(2))}
    shapes = {weight: (3, 2), bias: (2,), "ln_f.bias": (2,)}
    state = {name: _Tensor(np.full(shape, 7.0)) for name, shape in shapes.items()}
    names = {"model": SimpleNamespace(state_dict=lambda: state), "tensors": stored}
    exec(loop, names)
    assert state[weight].array.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert state[bias].array.tolist() == [0, 0] and state["ln_f.bias"].array.tolist() == [1, 1]
    del stored[weight]
    with pytest.raises(KeyError, match="c_attn"):
        exec(loop, names)


class _Tensor:
    """Has the methods of PyTorch's tensors that the documented lines call."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def t(self) -> _Tensor:
        return _Tensor(self.array.T)

    def copy_(self, other: _Tensor) -> None:
        self.array[...] = other.array

    def zero_(self) -> None:
        self.array[...] = 0
