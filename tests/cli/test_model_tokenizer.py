"""Tests `prepare --tokenizer M`: data in the tokens of a model, which a run then starts from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.data.meta import read_meta
from gpt2_jax.formats.load import load
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict
from tests.cli.refusals import refused
from tests.formats.folder_kinds import write_kind

_CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 1
    c.model.num_heads = 2
    c.model.d_model = 16
    c.model.context_length = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.data.path = "tokens"
    c.data.tokenizer = "bpe"
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 2
    c.train.init_from = "model"
    c.eval.sample_tokens = 0
    return c
"""
_TEXT = "It is a truth universally acknowledged. " * 40
_PREPARE = ("prepare", "--input", "text.txt", "--workers", "1", "--out", "tokens")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a model with a vocabulary of its own and an added end of text, and a text."""
    monkeypatch.chdir(tmp_path)
    write_kind("added_eos", Path("model"))
    Path("text.txt").write_text(_TEXT, encoding="utf-8")
    Path("config.py").write_text(_CONFIG, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_model_with_its_own_tokenizer_is_tuned_and_sampled(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = load("model").tokenizer
    assert main([*_PREPARE, "--tokenizer", "model", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["tokenizer"], summary["vocab_size"]) == ("bpe", 301)
    meta = read_meta("tokens")
    assert meta is not None
    assert tokenizer_from_dict(meta["tokenizer"]).to_dict() == theirs.to_dict()
    shard = meta["splits"]["train"]["shards"][0]
    tokens = np.fromfile(Path("tokens", shard["file"]), "<u2")[-shard["tokens"] :]
    assert tokens.tolist() == [300, *theirs.encode(_TEXT)][: len(tokens)]

    assert main(["train", "--config", "config.py", "--workdir", "run"]) == 0
    tuned = load("run")
    assert tuned.tokenizer.to_dict() == theirs.to_dict() and tuned.tokenizer.ends == {300}
    assert tuned.config.model.vocab_size == 301
    capsys.readouterr()
    words = ("--prompt", "It is", "--max_new_tokens", "4", "--json")
    assert main(["sample", "--model", "run", *words]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["tokens"]

    # The run's workdir is as good a name for the tokenizer, and the data is recognized.
    assert main([*_PREPARE, "--tokenizer", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already_prepared"]
    assert main(["convert", "--model", "run", "--to", "hf", "--out", "tuned"]) == 0
    assert load("tuned").tokenizer.to_dict() == theirs.to_dict()


def test_data_of_one_bpe_is_not_taken_for_that_of_another(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kind("map_dicts", Path("other"))
    write_kind("config_list", Path("third"))
    prepare(read_inputs(["text.txt"]), load("third").tokenizer, "tokens")
    err = refused(here, capsys, *_PREPARE, "--tokenizer", "model")
    assert "already holds other data (not the same tokenizer)" in err
    train = ("train", "--config", "config.py", "--workdir", "run")
    assert "vocab_size is 301 there and 300" in refused(here, capsys, *train)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gtp2",
            "--tokenizer must be gpt2, byte, char, bpe:N or a model, not 'gtp2': there is no such",
        ),
        ("", "or a model, not ''"),
        ("bpe", "or a model, not 'bpe'"),
        ("no/such", "--tokenizer: no model at no/such"),
        ("text.txt", "text.txt is not a model"),
    ],
)
def test_what_is_no_tokenizer_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert message in refused(here, capsys, *_PREPARE, "--tokenizer", name)


def test_a_model_of_ids_has_no_text_to_prepare_score_or_tune(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kind("none_33", Path("protein"))
    prepare(read_inputs(["text.txt"]), load("model").tokenizer, "tokens")
    settings = ("--config.train.init_from=protein", "--config.train.init_resize=true")
    for words, message in [
        ((*_PREPARE[:-1], "new", "--tokenizer", "protein"), "has no tokenizer that can be read"),
        (("eval", "--model", "protein", "--text", "text.txt"), "takes token ids and no text"),
        (
            ("train", "--config", "config.py", "--workdir", "run", *settings),
            "has no tokenizer that",
        ),
    ]:
        capsys.readouterr()
        assert message in refused(here, capsys, *words)
