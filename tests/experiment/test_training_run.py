"""`train` and `dry_run` from Python give the results of the command line."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

import gpt2_jax
from gpt2_jax.config import MeshConfig, load_config
from gpt2_jax.data.token_sets import open_sets
from gpt2_jax.errors import UserError
from gpt2_jax.evals import compression
from gpt2_jax.experiment import training_run
from gpt2_jax.planning.layout import Layout
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from tests.experiment.lab import FLAGS, make_config, read_json
from tests.runs import arrays, identical, lines, losses


@pytest.mark.slow
def test_train_equals_the_command(lab, run, capsys):
    workdir, results = run
    flags = [f"--config.{flag}" for flag in FLAGS]
    words = ("train", "--config", lab / "config.py", "--workdir", lab / "command", "--json", *flags)
    document = read_json(capsys, *words)
    assert results.keys() >= {"step", "eval/loss", "eval/bits_per_byte"} and results["step"] == 4
    assert {name: document[name] for name in results} == results
    assert losses(workdir) == losses(lab / "command")
    assert identical(arrays(workdir, 4), arrays(lab / "command", 4))
    # The command also asks for a comparison with compressors.
    figures = [document[f"{name} bits_per_byte"] for name in ("gzip -9", "xz -9")]
    assert document["compared_bytes"] > 100 and all(0 < value < 8 for value in figures)


def test_train_again_returns_the_results_of_the_finished_run(lab, run):
    workdir, results = run
    before = lines(workdir)
    assert gpt2_jax.train(make_config(lab), workdir) == results
    assert lines(workdir) == before


def test_train_on_an_accelerator_says_which_attention_it_uses_and_why(
    lab, run, monkeypatch, capsys
):
    workdir, _ = run
    gpt2_jax.train(make_config(lab), workdir)
    assert "attention" not in capsys.readouterr().err
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    gpt2_jax.train(make_config(lab), workdir)
    assert "\nattention: reference (splash needs a TPU; cudnn needs a GPU of" in (
        "\n" + capsys.readouterr().err
    )


def test_train_says_which_dtype_auto_has_chosen_and_why(lab, run, capsys):
    workdir, _ = run
    gpt2_jax.train(make_config(lab), workdir)
    assert "dtype" not in capsys.readouterr().err
    gpt2_jax.train(make_config(lab, "compute.dtype=auto"), workdir)
    lines_shown = capsys.readouterr().err.splitlines()
    assert lines_shown[0].startswith("dtype: float32")
    assert "(compute.dtype=auto: this CPU " in lines_shown[0]


def test_a_chosen_layout_is_said_and_used_and_not_saved(lab, run, monkeypatch, capsys):
    workdir, _ = run
    config, used = make_config(lab), []

    class Trainer(training_run.Trainer):
        def __init__(self, *args):
            super().__init__(*args)
            used.append(dict(self.constants.mesh.shape))

    monkeypatch.setattr(training_run, "Trainer", Trainer)
    gpt2_jax.train(config, workdir)
    assert "mesh: " not in capsys.readouterr().err  # on CPUs nothing is chosen
    layout = Layout(MeshConfig(2, 4, 1), "data 2 x fsdp 4 x tensor 1 (chosen)")
    monkeypatch.setattr(training_run, "run_layout", lambda config, devices: layout)
    gpt2_jax.train(config, workdir)
    assert "\nmesh: data 2 x fsdp 4 x tensor 1 (chosen)\n" in "\n" + capsys.readouterr().err
    assert used == [
        {"data": 8, "fsdp": 1, "tensor": 1},
        {"data": 2, "fsdp": 4, "tensor": 1},
    ]
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["mesh"] == dict.fromkeys(("data", "fsdp", "tensor"))
    report = training_run.dry_run(config)
    assert report["mesh"] == used[1] and report["layout"] == layout.text


@pytest.mark.slow
def test_train_resolves_the_vocabulary_and_stops_where_it_is_told(lab, tmp_path):
    config = make_config(lab, "model.vocab_size=none")
    assert gpt2_jax.train(config, tmp_path, stop_at_step=1)["step"] == 1
    assert json.loads((tmp_path / "config.json").read_text())["model"]["vocab_size"] == 257


def test_train_refuses_data_that_is_not_there_and_leaves_no_workdir(lab, tmp_path):
    config = make_config(lab, f"data.path={tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="nowhere"):
        gpt2_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dry_run_equals_the_command_and_needs_no_data(lab, capsys):
    config = make_config(lab, "data.path=none", "model.vocab_size=none")
    report = training_run.dry_run(config)
    flags = [f"--config.{flag}" for flag in (*FLAGS, "data.path=none", "model.vocab_size=none")]
    words = ("train", "--config", lab / "config.py", "--dry_run", "--json", *flags)
    assert read_json(capsys, *words) == report
    assert report["tokens_per_step"] == 8 * 16 and report["total_tokens"] == 4 * 8 * 16
    assert report["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert report["layout"] == "data 8 x fsdp 1 x tensor 1"
    assert report["memory_bytes"]["gradients"] == report["memory_bytes"]["parameters"]
    sharded = training_run.dry_run(
        dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=1, fsdp=8))
    )
    assert sharded["memory_bytes"]["parameters"] < report["memory_bytes"]["parameters"] / 4
    with pytest.raises(UserError, match="batch_size=12"):
        batch = dataclasses.replace(config.train, batch_size=12)
        training_run.dry_run(dataclasses.replace(config, train=batch))


def test_only_a_whole_text_of_one_folder_is_compared_with_compressors(lab):
    def compare(*overrides):
        config = make_config(lab, *overrides)
        return compression.of_validation(config, open_sets(config))

    assert "compared_bytes" in compare()
    assert compare("eval.batches=1") == {}
    prepare([Document("other", "red fish " * 80)], "byte", lab / "other")
    mixture = f"data.mixture={lab / 'data'}=1,{lab / 'other'}=1"
    assert compare("data.path=none", mixture) == {}


def test_train_refuses_wrong_arguments_before_it_makes_the_workdir(lab, tmp_path):
    with pytest.raises(UserError, match="config must be a Config"):
        gpt2_jax.train("configs/quickstart.py", tmp_path / "run")
    with pytest.raises(UserError, match="stop_at_step must be at least 1, not 0"):
        gpt2_jax.train(make_config(lab), tmp_path / "run", stop_at_step=0)
    with pytest.raises(UserError, match="overrides must be a list"):
        load_config(lab / "config.py", "train.seed=1")
    assert not (tmp_path / "run").exists()
