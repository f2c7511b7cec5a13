"""Tests how a run takes its model section from the model that it starts from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.formats.run_model import resolve_model
from tests.formats.folder_kinds import write_kind
from tests.inference.tiny import make_run, tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run_model") / "run")


def _config(init_from: Path | None, **model: Any) -> Config:
    train = {"init_model": True, "init_from": None if init_from is None else str(init_from)}
    return config_lib.from_dict({"train": train, "model": model})


def test_sizes_and_tokenizer_are_the_models(model: Path) -> None:
    config = resolve_model(_config(model, dropout=0.1))
    assert config.model == dataclasses.replace(tiny_config().model, dropout=0.1)
    assert config.data.tokenizer == "byte"


def test_a_folder_in_another_format_gives_its_vocabulary(tmp_path: Path) -> None:
    config = resolve_model(_config(write_kind("added_eos", tmp_path / "model")))
    assert (config.model.vocab_size, config.data.tokenizer) == (301, "bpe")


def test_without_the_knob_nothing_is_read() -> None:
    config = config_lib.from_dict({"train": {"init_from": "missing"}})
    assert resolve_model(config) is config


def test_a_knob_that_is_set_to_something_else_is_refused(model: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.num_layers=3, but .* where it is 2: leave"):
        resolve_model(_config(model, num_layers=3))
    with pytest.raises(UserError, match=r"model\.tie_embeddings=false, but .* it is true"):
        resolve_model(_config(model, tie_embeddings=False))
    assert resolve_model(_config(model, num_layers=2)).model.num_layers == 2


def test_sizes_that_can_be_cropped_or_grown_are_the_configs_only_if_asked_for(model: Path) -> None:
    config = _config(model, context_length=48)
    with pytest.raises(UserError, match=r"context_length=48.*init_resize"):
        resolve_model(config)
    train = dataclasses.replace(config.train, init_resize=True)
    resized = resolve_model(dataclasses.replace(config, train=train))
    assert (resized.model.context_length, resized.model.num_layers) == (48, 2)
    assert resized.model.vocab_size is None  # which becomes that of the data


def test_a_run_resumes_without_the_model_that_it_started_from(tmp_path: Path, model: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    saved = resolve_model(_config(copy))
    shutil.rmtree(copy)
    assert resolve_model(_config(copy), saved) == saved
    with pytest.raises(UserError, match="no model at"):
        resolve_model(_config(copy))
    other = dataclasses.replace(saved, train=dataclasses.replace(saved.train, init_from="other"))
    with pytest.raises(UserError, match="no model at"):  # another run's model says nothing
        resolve_model(_config(copy), other)


def test_it_needs_a_model() -> None:
    with pytest.raises(UserError, match=r"--config\.train\.init_from=M"):
        resolve_model(_config(None))


def test_knobs_are_checked_against_the_model_that_is_found(model: Path) -> None:
    config = _config(model)
    lengths = dataclasses.replace(config.eval, context_lengths="512")
    with pytest.raises(UserError, match="context_lengths=512"):
        resolve_model(dataclasses.replace(config, eval=lengths))
    with pytest.raises(UserError, match=r"at most model\.d_model=32"):
        resolve_model(_config(model, lora_rank=64))


def test_adapters_are_checked_once_the_model_is_known(tmp_path: Path, model: Path) -> None:
    gated = make_run(tmp_path / "gated", tiny_config(activation="swiglu"))
    adapters = {"lora_rank": 4, "lora_targets": "mlp.c_gate"}
    assert resolve_model(_config(gated, **adapters)).model.lora_targets == "mlp.c_gate"
    with pytest.raises(UserError, match=r"names mlp.c_gate, which model.activation=gelu_new does"):
        resolve_model(_config(model, **adapters))
    with pytest.raises(UserError, match=r"model.lora_rank=33 must be at most model.d_model=32"):
        resolve_model(_config(model, lora_rank=33))
