"""A run with an average of its parameters: each verb reads it, at the trained length and others."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import gpt2_jax
from gpt2_jax import config as config_lib
from gpt2_jax.api import LanguageModel
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import Model, load
from gpt2_jax.model.build import abstract_params
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import make_run, noisy_params, tiny_config

_T = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, and its data."""
    folder = tmp_path_factory.mktemp("averages")
    prepare(
        [Document("fish", "one fish two fish red fish blue fish " * 60)], "byte", folder / "data"
    )
    values = config_lib.to_dict(tiny_config(position="relative", context_length=_T, scan_unroll=1))
    values["data"]["path"] = str(folder / "data")
    values["optimizer"] |= {"ema_decay": 0.5}
    values["schedule"] |= {"learning_rate": 0.02}
    values["train"] |= {"total_steps": 3}
    values["eval"] |= {"sample_tokens": 0, "context_lengths": "16,40", "batches": 1}
    values["log"] |= {"tensorboard": False}
    gpt2_jax.train(from_dict(values), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an average, and with learned positions."""
    return make_run(tmp_path_factory.mktemp("plain") / "run")


def _logged(run: Path) -> dict[str, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return next(line for line in lines if "eval/loss" in line)


def _document(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _average(run: Path) -> Any:
    with contextlib.closing(
        CheckpointStore(run / "checkpoints", read_only=True, average=True)
    ) as store:
        return store.restore_params(3, abstract_params(load(run).config.model))


@pytest.mark.slow
def test_validation_is_that_of_training_at_every_length(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = _logged(run)
    assert logged["eval/loss_at_16"] == pytest.approx(logged["eval/loss"], rel=1e-6)
    assert abs(logged["eval/loss_at_40"] / logged["eval/loss"] - 1) > 1e-4
    assert abs(logged["eval/ema_loss"] / logged["eval/loss"] - 1) > 1e-4
    words = ("eval", "--model", run, "--validation")
    for more, name, expected in (
        ((), "validation", "eval/loss"),
        (("--context_length", 16), "validation", "eval/loss"),
        (("--context_length", 40), "validation_at_40", "eval/loss_at_40"),
        (("--ema",), "validation", "eval/ema_loss"),
    ):
        found = _document(capsys, *words, *more)
        assert found["context_length"] == (40 if 40 in more else 16)
        assert found["ema"] == ("--ema" in more)
        assert f"windows of {found['context_length']} tokens" in found["protocols"][name]
        numbers = found["tasks"][name]
        assert numbers["loss"] == pytest.approx(logged[expected], rel=1e-6)
        assert numbers["count"] == -(-8 * _T // found["context_length"])
    assert _document(capsys, *words, "--limit", 3)["tasks"]["validation"]["count"] == 3
    assert main([*map(str, words)]) == 0
    assert "loss" in capsys.readouterr().out


@pytest.mark.slow
def test_a_text_is_scored_in_windows_of_the_length(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "three fish four fish and five " * 3
    (tmp_path / "text").write_text(text)
    words = ("eval", "--model", run, "--text", tmp_path / "text")
    plain, same, longer = (
        _document(capsys, *words, *more)["tasks"]["text"]
        for more in ((), ("--context_length", _T), ("--context_length", 128))
    )
    assert plain == same and longer["count"] == 1 < plain["count"]
    ids = [ByteTokenizer().bos, *text.encode()]
    nats = -sum(gpt2_jax.load(run).score(ids).logprobs)
    assert longer["token_perplexity"] == pytest.approx(np.exp(nats / len(text)), rel=1e-4)


@pytest.mark.slow
def test_sample_goes_beyond_the_context_and_takes_the_average(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", "--model", run, "--prompt", "one fish", "--max_new_tokens", 40)
    config, tokenizer = load(run).config, ByteTokenizer()
    expected = LanguageModel(Model(config, _average(run), tokenizer, 3, run)).generate(
        "one fish", max_new_tokens=40
    )
    averaged = _document(capsys, *words, "--ema")["samples"]
    assert [sample["tokens"] for sample in averaged] == [sample.tokens for sample in expected]
    assert gpt2_jax.load(run, ema=True).generate("one fish", max_new_tokens=40) == expected
    assert _document(capsys, *words)["samples"] != averaged


@pytest.mark.slow
def test_convert_writes_the_average(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", "--model", str(run), "--ema"]
    assert main([*words, "--to", "native", "--out", str(tmp_path / "own")]) == 0
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "own").params, _average(run))
    assert main([*words, "--to", "hf", "--out", str(tmp_path / "hf")]) == 2
    assert "model.position=relative is not part of Hugging Face's GPT-2" in capsys.readouterr().err
    # What was converted keeps no average of its own.
    assert main(["sample", "--model", str(tmp_path / "own"), "--ema"]) == 2
    assert "no average of the parameters was kept" in capsys.readouterr().err


def test_what_keeps_no_average_refuses_in_one_line(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf = tmp_path / "hf"
    assert main(["convert", "--model", str(plain), "--to", "hf", "--out", str(hf)]) == 0
    capsys.readouterr()
    for model, message in (
        (plain, "because the run has optimizer.ema_decay=0"),
        (plain / "checkpoints" / "2", "because the run has optimizer.ema_decay=0"),
        (hf, "in another program's format, which has no average"),
    ):
        for words in (
            ("sample",),
            ("eval", "--validation"),
            ("convert", "--to", "native", "--out", str(tmp_path / "new")),
        ):
            assert main([words[0], "--model", str(model), "--ema", *words[1:]]) == 2
            out, err = capsys.readouterr()
            assert not out and err.count("\n") == 1 and message in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text", __file__, "--context_length", "0"), "--context_length must be at least 1"),
        (
            ("--text", __file__, "--context_length", "33"),
            "context_length=33 exceeds the model's context of 32, beyond which model.position=lea",
        ),
        (("--validation",), "does not name the data that it was trained on"),
        (("--validation", "--stride", "4"), "--stride has no effect on --validation"),
    ],
)
def test_wrong_lengths_and_splits_are_one_line(
    plain: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main(["eval", "--model", str(plain), *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err


def test_an_average_of_no_updates_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    made = make_run(tmp_path / "run", config)
    meta = {"step": 3, "config": config_lib.to_dict(config), "tokenizer": ByteTokenizer().to_dict()}
    params = noisy_params(config)
    with contextlib.closing(CheckpointStore(made / "checkpoints", keep=9)) as store:
        zeros = jax.tree.map(np.zeros_like, params)
        store.save(3, params, {"step": np.int32(3), "ema": zeros}, meta)
        store.wait()
    with pytest.raises(UserError, match="no average of the parameters yet"):
        load(made, ema=True)


def test_other_shards_than_those_of_the_run_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(run)
    values = config_lib.to_dict(loaded.config)
    prepare([Document("other", "other fish " * 200)], "byte", tmp_path / "data")
    values["data"]["path"] = str(tmp_path / "data")
    meta = {
        "step": 3,
        "config": values,
        "tokenizer": loaded.tokenizer.to_dict(),
        "data_fingerprint": "before",
    }
    with contextlib.closing(CheckpointStore(tmp_path / "run" / "checkpoints")) as store:
        store.save(3, loaded.params, None, meta)
        store.wait()
    assert main(["eval", "--model", str(tmp_path / "run"), "--validation"]) == 2
    assert "are not those that" in capsys.readouterr().err
