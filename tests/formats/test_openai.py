"""Tests OpenAI's format: a checkpoint that TensorFlow wrote, and damaged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import load, open_model
from gpt2_jax.formats.tensor_bundle import TensorBundle
from gpt2_jax.tokenizers import vocabulary
from gpt2_jax.tokenizers.ids import IdsTokenizer
from tests.formats.openai_folder import write_bundle

_FIXTURE = Path(__file__).parent / "fixtures" / "openai"
_DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(_FIXTURE, tmp_path / "124M")


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    saved = np.load(_FIXTURE / "values.npz")
    return {name.replace("|", "/"): saved[name] for name in saved.files}


def _line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bundle_holds_what_tensorflow_wrote(values: dict[str, np.ndarray]) -> None:
    bundle = TensorBundle(_FIXTURE / "model.ckpt")
    assert bundle.shapes == {name: value.shape for name, value in values.items()}
    for name, value in values.items():
        np.testing.assert_array_equal(bundle.read(name), value)


def test_every_variable_has_its_place(folder: Path, values: dict[str, np.ndarray]) -> None:
    loaded = load(folder)
    model, params = loaded.config.model, loaded.params
    sizes = (model.num_layers, model.num_heads, model.d_model, model.context_length)
    assert sizes == (2, 3, 24, 16) and model.vocab_size == 61 and model.activation == "gelu_new"
    names = {"kernel": "w", "bias": "b", "scale": "g"}
    for i in range(2):
        for path in ("ln_1", "ln_2", "attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"):
            leaves = params["h"]
            for part in path.split("/"):
                leaves = leaves[part]
            for leaf, array in leaves.items():
                theirs = values[f"model/h{i}/{path}/{names[leaf]}"]
                np.testing.assert_array_equal(np.ravel(array[i]), np.ravel(theirs))
    np.testing.assert_array_equal(params["wte"][:61], values["model/wte"])
    np.testing.assert_array_equal(params["wpe"], values["model/wpe"])
    np.testing.assert_array_equal(params["ln_f"]["scale"], values["model/ln_f/g"])


def test_gpt2s_tokenizer_is_assumed_only_without_another_and_a_note_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def tokenizer_and_note() -> tuple[str, str]:
        with open_model(folder) as reader:
            return reader.tokenizer.name, capsys.readouterr().err

    assert load(folder).tokenizer.name == "ids"
    assert "n_vocab=61 is less than GPT-2's 50257" in capsys.readouterr().err
    hparams = json.loads((folder / "hparams.json").read_text()) | {"n_vocab": 50257}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    expected = f"note: {folder} has no encoder.json: GPT-2's tokenizer is assumed\n"
    assert tokenizer_and_note() == ("gpt2", expected)
    (folder / "vocab.bpe").write_bytes(vocabulary.gpt2_file("vocab.bpe"))
    assert tokenizer_and_note() == ("gpt2", "")
    with pytest.raises(UserError, match="wte has the shape"):
        load(folder)
    (folder / "encoder.json").write_text("{}")
    with open_model(folder) as reader:
        assert isinstance(reader.tokenizer, IdsTokenizer)
        assert "encoder.json differs from GPT-2's own file" in reader.tokenizer.reason


@pytest.mark.parametrize("content", ["{", "[]", '{"n_vocab": 61}', '{"n_vocab": "many"}'])
def test_broken_hyperparameters_are_one_line(folder: Path, content: str) -> None:
    (folder / "hparams.json").write_text(content)
    with pytest.raises(UserError) as error:
        load(folder)
    assert "hparams.json" in _line(error)


def test_a_hyperparameter_that_gpt2_lacks_is_refused(folder: Path) -> None:
    hparams = json.loads((folder / "hparams.json").read_text())
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_experts": 8}))
    with pytest.raises(UserError, match="n_experts is not one of GPT-2's"):
        load(folder)


def _cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def _overwrite(at: int, value: bytes) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        content = bytearray((folder / "model.ckpt.index").read_bytes())
        content[at : at + len(value) or None] = value
        (folder / "model.ckpt.index").write_bytes(bytes(content))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut(_DATA, 1000), "is truncated"),
        (_cut("model.ckpt.index", 500), "is not the index of a TensorFlow checkpoint"),
        (_cut("model.ckpt.index", 10), "is not the index of a TensorFlow checkpoint"),
        (_cut("model.ckpt.index", 0), "is not the index of a TensorFlow checkpoint"),
        (_overwrite(-48, b"\xff" * 20), "is not the index of a TensorFlow checkpoint"),
        (lambda folder: (folder / _DATA).unlink(), "is missing: it holds model/"),
        (lambda folder: (folder / "model.ckpt.index").unlink(), "0 *.index files"),
        (lambda folder: shutil.copy(folder / "model.ckpt.index", folder / "b.index"), "2 *.index"),
    ],
)
def test_damaged_files_are_one_line(folder: Path, damage: Any, message: str) -> None:
    hparams = json.loads((folder / "hparams.json").read_text()) | {"n_vocab": 50257}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    damage(folder)
    with pytest.raises(UserError) as error:
        load(folder)
    assert message in _line(error)


def test_a_flipped_bit_of_the_index_is_noticed_or_means_nothing(
    folder: Path, values: dict[str, np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    whole = (folder / "model.ckpt.index").read_bytes()
    refused = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        (folder / "model.ckpt.index").write_bytes(bytes(changed))
        try:
            bundle = TensorBundle(folder / "model.ckpt")
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert bundle.shapes == {name: value.shape for name, value in values.items()}
    assert refused > 0.9 * len(whole)


def test_the_folders_of_other_tests_are_bundles(
    tmp_path: Path, values: dict[str, np.ndarray]
) -> None:
    write_bundle(tmp_path / "model.ckpt", values)
    bundle = TensorBundle(tmp_path / "model.ckpt")
    for name, value in values.items():
        np.testing.assert_array_equal(bundle.read(name), value)
