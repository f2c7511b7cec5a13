"""Tests fine-tuning by the shipped configs as a user runs it, from models of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import Config
from gpt2_jax.formats.load import load
from gpt2_jax.training.metrics_file import last_evaluation
from tests.formats.folder_kinds import write_kind
from tests.formats.openai_folder import write_openai_folder
from tests.inference.tiny import make_run

_CONFIGS = Path(__file__).parents[2] / "configs"
_EXAMPLES = [{"question": f"{i}?", "reply": f"{i}"} for i in range(40)]
_SHORT = (
    "--config.train.total_steps=4",
    "--config.schedule.warmup_steps=1",
    "--config.checkpoint.every=2",
    "--config.eval.every=2",
    "--config.log.every=1",
    "--config.log.tensorboard=false",
    "--config.data.fields=prompt:question,answer:reply",
)
_MODELS: dict[str, Callable[[Path], Path]] = {
    "run": make_run,
    "huggingface": lambda path: write_kind("added_eos", path),
    "openai": write_openai_folder,
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a file of examples in a folder of its own, where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT2_JAX_EXAMPLES", str(tmp_path / "cache"))
    lines = "".join(f"{json.dumps(example)}\n" for example in _EXAMPLES)
    Path("qa.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def _train(config: str, *flags: str, model: str = "model", workdir: str = "run") -> int:
    return main(
        [
            *("train", "--config", str(_CONFIGS / f"{config}.py"), "--workdir", workdir),
            *(f"--config.train.init_from={model}", "--config.data.path=qa.jsonl"),
            *_SHORT,
            *flags,
        ]
    )


def _answer(capsys: pytest.CaptureFixture[str], model: str) -> dict[str, Any]:
    capsys.readouterr()
    words = ("--prompt", "3?", "--max_new_tokens", "4", "--temperature", "0", "--json")
    assert main(["sample", "--model", model, *words]) == 0
    return json.loads(capsys.readouterr().out)["samples"][0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", _MODELS)
def test_one_command_tunes_a_model_of_any_format(
    kind: str, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _MODELS[kind](house / "model")
    assert _train("finetune") == 0, capsys.readouterr().err
    before, after = load("model"), load("run/checkpoints/best")
    assert after.tokenizer.to_dict() == before.tokenizer.to_dict()
    assert after.config.model.differences(before.config.model) == {}
    numbers, step = last_evaluation(house / "run")
    assert step == 4 and 0 < numbers["eval/loss"] < 20
    assert _answer(capsys, "run/checkpoints/best")["tokens"]
    assert main(["convert", "--model", "run/checkpoints/best", "--to", "hf", "--out", "hf"]) == 0
    assert _answer(capsys, "hf") == _answer(capsys, "run/checkpoints/best")
    # The same command again has nothing left to do, without the model that it started from.
    Path("model").rename("moved")
    if kind == "run":
        assert _train("finetune") == 0


@pytest.mark.slow
def test_adapters_of_a_run_are_tuned_sampled_merged_and_exported(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(house / "model")
    # So that the adapters are worth less than their noise.
    flags = ("--config.model.lora_rank=2", "--config.schedule.learning_rate=0.1")
    assert _train("finetune_lora", *flags) == 0, capsys.readouterr().err
    answer = _answer(capsys, "run/checkpoints/best")
    for form in ("hf", "peft"):
        out = ("--to", form, "--out", form)
        assert main(["convert", "--model", "run/checkpoints/best", *out]) == 0
    assert _answer(capsys, "hf")["tokens"] == answer["tokens"]
    assert answer["tokens"] != _answer(capsys, "model")["tokens"]
    assert {path.name for path in Path("peft").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_dry_run_shows_the_model_that_it_starts_from(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(house / "model")
    capsys.readouterr()
    assert _train("finetune_lora", "--dry_run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    config: Config = load("model").config
    assert report["tokens_per_step"] == 16 * config.model.context_length
    assert report["trained_parameters"] < 0.5 * report["parameters"]


@pytest.mark.parametrize("config", ["finetune", "finetune_lora"])
def test_a_model_must_be_named(
    config: str, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", str(_CONFIGS / f"{config}.py"), "--config.data.path=qa.jsonl"]
    assert main([*words, "--workdir", "run"]) == 2
    error = capsys.readouterr().err
    assert "--config.train.init_from=M" in error and error.count("\n") == 1
    assert not Path("run").exists()
