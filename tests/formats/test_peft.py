"""Tests for adapters in PEFT's format: files written by hand, round trips, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import load, read_text_tokenizer
from gpt2_jax.model import lora
from tests.inference.tiny import make_run

RANK, LAYERS, D = 3, 2, 32
# PEFT's module -> (inputs, outputs).
MODULES = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D)}
SETTINGS: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "../base",
    "r": RANK,
    "lora_alpha": 6,
    "lora_dropout": 0.1,
    "fan_in_fan_out": True,
    "bias": "none",
    "target_modules": ["c_attn", "attn.c_proj", "c_fc"],
}


def _tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    tensors = {}
    for layer in range(LAYERS):
        for module, (inputs, outputs) in MODULES.items():
            name = f"base_model.model.transformer.h.{layer}.{module}"
            shapes = {"lora_A": (RANK, inputs), "lora_B": (outputs, RANK)}
            for factor, shape in shapes.items():
                tensors[f"{name}.{factor}.weight"] = rng.normal(0, 0.2, shape).astype(np.float32)
    return tensors


def write_by_hand(
    folder: Path, tensors: dict[str, np.ndarray] | None = None, **changes: Any
) -> Path:
    """Writes a folder with adapters of a model beside it, named base."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | changes))
    save_file(_tensors() if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    make_run(folder / "run")
    assert main(["convert", "--model", str(folder / "run"), "--to", "hf",
                 "--out", str(folder / "base")]) == 0  # fmt: skip
    write_by_hand(folder / "adapters")
    return folder


def test_merged_weights_are_w_plus_alpha_over_r_times_b_a(home: Path) -> None:
    model, base, tensors = load(home / "adapters"), load(home / "base"), _tensors()
    assert model.config.model.lora_rank == RANK
    assert model.config.model.lora_targets == "attn.c_attn,attn.c_proj,mlp.c_fc"
    merged = lora.merge(model.params, model.config.model)
    for layer in range(LAYERS):
        for module, (inputs, outputs) in MODULES.items():
            part, linear = module.split(".")
            name = f"base_model.model.transformer.h.{layer}.{module}"
            a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
            kernel = np.asarray(base.params["h"][part][linear]["kernel"][layer])
            expected = kernel.reshape(inputs, outputs) + 6 / RANK * (b @ a).T
            found = np.asarray(merged["h"][part][linear]["kernel"][layer])
            np.testing.assert_allclose(found.reshape(inputs, outputs), expected, atol=1e-5)
    np.testing.assert_array_equal(merged["wte"], base.params["wte"])
    assert read_text_tokenizer(home / "adapters").to_dict() == base.tokenizer.to_dict()


def test_what_is_written_is_read_and_written_again_to_the_byte(home: Path, tmp_path: Path) -> None:
    for source, out in ((home / "adapters", "one"), (tmp_path / "one", "two")):
        command = ["convert", "--model", str(source), "--to", "peft", "--out", str(tmp_path / out)]
        assert main(command) == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    written, original = load_file(tmp_path / "one" / "adapter_model.safetensors"), _tensors()
    assert written.keys() == original.keys()
    assert all(np.array_equal(written[name], original[name]) for name in original)
    settings = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc"]
    assert settings["base_model_name_or_path"] == str((home / "base").resolve())


@pytest.mark.parametrize("to", ["hf", "native"])
def test_whole_models_are_written_merged(home: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    assert main(["convert", "--model", str(home / "adapters"), "--to", to, "--out", str(out)]) == 0
    model, written = load(home / "adapters"), load(out)
    assert written.config.model.lora_rank == 0
    merged = lora.merge(model.params, model.config.model)
    jax.tree.map(np.testing.assert_array_equal, written.params, merged)


def test_a_folder_samples(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "--model", str(home / "adapters"), "--max_new_tokens", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr().out


def test_rank_stabilized_adapters_have_their_own_factor(home: Path) -> None:
    folder = home / "rslora"
    model = load(write_by_hand(folder, use_rslora=True))
    assert model.config.model.lora_alpha == pytest.approx(6 * RANK**0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3': only 'LORA' can be read"),
        ({"task_type": "SEQ_CLS"}, "task_type='SEQ_CLS': only 'CAUSAL_LM'"),
        ({"bias": "all"}, "bias='all' asks for trained biases"),
        ({"use_dora": True}, "use_dora=True asks for DoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "asks for a base with other weights"),
        ({"init_lora_weights": "loftq"}, "asks for a base with other weights"),
        ({"revision": "step-100"}, "asks for a version of the base"),
        ({"modules_to_save": ["lm_head"]}, "asks for modules that are trained as a whole"),
        ({"rank_pattern": {"c_attn": 8}}, "asks for ranks that differ between layers"),
        ({"alpha_pattern": {"c_attn": 8}}, "asks for factors that differ between layers"),
        ({"layers_to_transform": [0]}, "asks for adapters in some layers only"),
        ({"target_modules": ["c_attn", "wte"]}, "names wte: adapters of embeddings"),
        ({"target_modules": ["c_attn", "mlp.c_proj"]}, "names 'mlp.c_proj', of which"),
        ({"r": 0}, "r=0 must be a whole number of 1 or more"),
        ({"r": 4}, "has the shape [32, 3], but its config requires [32, 4]"),
        ({"lora_alpha": None}, "lora_alpha=None must be a number above 0"),
        ({"lora_dropout": 1}, "lora_dropout=1 must be from 0 to below 1"),
        ({"base_model_name_or_path": None}, "does not name the model that the adapters belong to"),
        ({"base_model_name_or_path": "../gone"}, "the base ../gone of the adapters in"),
        ({"base_model_name_or_path": "../adapters"}, "adapters cannot be added to adapters"),
    ],
)
def test_settings_that_cannot_be_honored_are_refused(
    home: Path, changes: dict[str, Any], words: str
) -> None:
    folder = home / re.sub(r"\W", "_", f"bad {changes}")
    with pytest.raises(UserError, match=re.escape(words)) as error:
        load(write_by_hand(folder, **changes))
    assert "\n" not in str(error.value)


def _without_a_layer(tensors: dict[str, np.ndarray]) -> None:
    del tensors["base_model.model.transformer.h.1.attn.c_attn.lora_A.weight"]


def _with_an_embedding(tensors: dict[str, np.ndarray]) -> None:
    tensors["base_model.model.transformer.wte.lora_embedding_A"] = np.zeros((3, 4), np.float32)


def _with_another_layer(tensors: dict[str, np.ndarray]) -> None:
    name = "base_model.model.transformer.h.2.attn.c_attn.lora_A.weight"
    tensors[name] = np.zeros((RANK, D), np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_a_layer, "h.1.attn.c_attn.lora_A.weight is missing"),
        (_with_an_embedding, "wte.lora_embedding_A, which is no adapter of a linear layer"),
        (_with_another_layer, "has 2 layers, and none for the tensor base_model.model.transf"),
    ],
)
def test_other_tensors_are_refused(home: Path, change: Any, words: str) -> None:
    tensors = _tensors()
    change(tensors)
    with pytest.raises(UserError, match=re.escape(words)):
        load(write_by_hand(home / change.__name__, tensors))


def test_files_that_are_missing_or_broken_are_refused(home: Path) -> None:
    folder = write_by_hand(home / "broken")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load(folder)
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="only a PyTorch pickle"):
        load(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=r"has an adapter_config.json but no adapter_model"):
        load(folder)


def test_a_model_without_adapters_is_not_written_so(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    out = str(tmp_path / "out")
    assert main(["convert", "--model", str(home / "base"), "--to", "peft", "--out", out]) == 2
    assert "has no adapters (LoRA), which --to peft writes" in capsys.readouterr().err
