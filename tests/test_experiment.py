"""`train`, `evaluate` and the rest of `experiment` from Python give the command line's results."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import pytest

import gpt2_jax
from gpt2_jax import experiment
from gpt2_jax.cli.main import main
from gpt2_jax.config import MeshConfig, load_config
from gpt2_jax.data.token_sets import open_sets
from gpt2_jax.errors import UserError
from gpt2_jax.evals import compression
from gpt2_jax.planning.layout import Layout
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from tests.runs import arrays, fill_lab, identical, lines, losses

_FLAGS = ("train.total_steps=4", "schedule.warmup_steps=1", "eval.sample_tokens=0")
_TEXTS = ("one red fish", "two blue", "fish fish fish fish")


def make_config(lab, *flags):
    return load_config(lab / "config.py", [*_FLAGS, *flags])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a config, its data, and the examples of a task."""
    folder = tmp_path_factory.mktemp("experiment")
    fill_lab(folder)
    examples = [json.dumps({"text": text}) for text in _TEXTS]
    (folder / "lambada_test.jsonl").write_text("\n".join(examples))
    return folder


@pytest.fixture(scope="module")
def run(lab):
    """The run that Python trained, and what `train` returned."""
    return lab / "python", gpt2_jax.train(make_config(lab), lab / "python")


def read_json(capsys, *words):
    """Returns the document that a command prints."""
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_train_equals_the_command(lab, run, capsys):
    workdir, results = run
    flags = [f"--config.{flag}" for flag in _FLAGS]
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

    class Trainer(experiment.Trainer):
        def __init__(self, *args):
            super().__init__(*args)
            used.append(dict(self.constants.mesh.shape))

    monkeypatch.setattr(experiment, "Trainer", Trainer)
    gpt2_jax.train(config, workdir)
    assert "mesh: " not in capsys.readouterr().err  # on CPUs nothing is chosen
    layout = Layout(MeshConfig(2, 4, 1), "data 2 x fsdp 4 x tensor 1 (chosen)")
    monkeypatch.setattr(experiment, "run_layout", lambda config, devices: layout)
    gpt2_jax.train(config, workdir)
    assert "\nmesh: data 2 x fsdp 4 x tensor 1 (chosen)\n" in "\n" + capsys.readouterr().err
    assert used == [
        {"data": 8, "fsdp": 1, "tensor": 1},
        {"data": 2, "fsdp": 4, "tensor": 1},
    ]
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["mesh"] == dict.fromkeys(("data", "fsdp", "tensor"))
    report = experiment.dry_run(config)
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


def test_evaluate_equals_the_command(lab, run, capsys):
    workdir, _ = run
    (lab / "letters.txt").write_text("one fish two fish red fish blue fish. " * 3)
    report = gpt2_jax.evaluate(
        workdir, ["lambada_openai"], lab, texts={"letters.txt": lab / "letters.txt"}, limit=2
    )
    words = ("--tasks", "lambada_openai", "--data", lab, "--text", lab / "letters.txt")
    document = read_json(capsys, "eval", "--model", workdir, *words, "--limit", 2, "--json")
    assert report["tasks"].keys() == {"lambada_openai", "letters.txt"}
    assert report["step"] == 4 and report["limit"] == 2
    assert report["tasks"]["lambada_openai"]["count"] == 2
    for task, metrics in report["tasks"].items():
        for name, value in metrics.items():
            printed = document["tasks"][task][name]
            assert printed == value or (printed is None and math.isnan(value)), (task, name)
    assert {name: document[name] for name in ("step", "limit", "protocols")} == {
        name: report[name] for name in ("step", "limit", "protocols")
    }


@pytest.mark.slow
def test_evaluate_keeps_results_reports_progress_and_resumes(lab, run, tmp_path):
    calls = []

    class Progress:
        def __init__(self, task):
            self.task = task

        def __enter__(self):
            return lambda done, total: calls.append((self.task, done, total))

        def __exit__(self, *_):
            calls.append(f"{self.task} is done")

    def evaluate():
        return gpt2_jax.evaluate(run[0], ["lambada_openai"], lab, out=tmp_path, progress=Progress)

    first = evaluate()
    assert calls[-2:] == [("lambada_openai", 3, 3), "lambada_openai is done"]
    assert (tmp_path / "results.json").exists()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert evaluate()["tasks"] == first["tasks"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_dry_run_equals_the_command_and_needs_no_data(lab, capsys):
    config = make_config(lab, "data.path=none", "model.vocab_size=none")
    report = experiment.dry_run(config)
    flags = [f"--config.{flag}" for flag in (*_FLAGS, "data.path=none", "model.vocab_size=none")]
    words = ("train", "--config", lab / "config.py", "--dry_run", "--json", *flags)
    assert read_json(capsys, *words) == report
    assert report["tokens_per_step"] == 8 * 16 and report["total_tokens"] == 4 * 8 * 16
    assert report["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert report["layout"] == "data 8 x fsdp 1 x tensor 1"
    assert report["memory_bytes"]["gradients"] == report["memory_bytes"]["parameters"]
    sharded = experiment.dry_run(
        dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, data=1, fsdp=8))
    )
    assert sharded["memory_bytes"]["parameters"] < report["memory_bytes"]["parameters"] / 4
    with pytest.raises(UserError, match="batch_size=12"):
        batch = dataclasses.replace(config.train, batch_size=12)
        experiment.dry_run(dataclasses.replace(config, train=batch))


def test_only_a_whole_text_of_one_folder_is_compared_with_compressors(lab):
    def compare(*overrides):
        config = make_config(lab, *overrides)
        return compression.of_validation(config, open_sets(config))

    assert "compared_bytes" in compare()
    assert compare("eval.batches=1") == {}
    prepare([Document("other", "red fish " * 80)], "byte", lab / "other")
    mixture = f"data.mixture={lab / 'data'}=1,{lab / 'other'}=1"
    assert compare("data.path=none", mixture) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["lambda"]}, "unknown task 'lambda'"),
        ({"tasks": ["lambada_openai"], "limit": 0}, "limit must be at least 1, not 0"),
        ({"tasks": ["lambada_openai"], "stride": 0}, "stride must be at least 1, not 0"),
    ],
)
def test_evaluate_refuses_wrong_arguments_before_it_opens_the_model(lab, arguments, message):
    with pytest.raises(UserError, match=message):
        gpt2_jax.evaluate(lab / "no_model", data=lab, **arguments)


def test_train_refuses_wrong_arguments_before_it_makes_the_workdir(lab, tmp_path):
    with pytest.raises(UserError, match="config must be a Config"):
        gpt2_jax.train("configs/quickstart.py", tmp_path / "run")
    with pytest.raises(UserError, match="stop_at_step must be at least 1, not 0"):
        gpt2_jax.train(make_config(lab), tmp_path / "run", stop_at_step=0)
    with pytest.raises(UserError, match="overrides must be a list"):
        load_config(lab / "config.py", "train.seed=1")
    assert not (tmp_path / "run").exists()
