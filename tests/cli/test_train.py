"""Tests `gpt2-jax train`: dry runs, the list of knobs, and one tiny run from end to end."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import knobs, load_config, to_dict
from gpt2_jax.formats.load import load

_CONFIGS = Path(__file__).parents[2] / "configs"
_TINY = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 1
    c.model.num_heads = 4
    c.model.d_model = 32
    c.model.context_length = 32
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.data.tokenizer = "byte"
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 2
    c.eval.sample_tokens = 4
    c.log.every = 1
    c.log.norms_every = 0
    return c
"""


def _dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Returns the JSON document of a dry run, which also notes that the data is missing."""
    assert main(["train", *words]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("note: ") and err.count("\n") == 1
    assert out.endswith("}\n")
    assert out.count("\n") == 1
    return json.loads(out)


# Dry runs.


@pytest.mark.parametrize(
    ("name", "parameters"), [("gpt2_small", 124_439_808), ("gpt2_xl", 1_557_611_200)]
)
def test_a_dry_run_is_one_json_document(
    capsys: pytest.CaptureFixture[str], name: str, parameters: int
) -> None:
    path = str(_CONFIGS / f"{name}.py")
    report = _dry_run(capsys, "--config", path, "--dry_run", "--json")
    assert {"parameters", "tokens_per_step", "mesh", "memory_bytes"} <= set(report)
    assert report["parameters"] == parameters
    assert report["tokens_per_step"] == 512 * 1024
    assert report["mesh"].keys() == {"data", "fsdp", "tensor"}
    assert np.prod(list(report["mesh"].values())) == jax.device_count()
    memory = report["memory_bytes"]
    assert memory.keys() == {"parameters", "optimizer", "gradients"}
    assert memory["optimizer"] > 2 * memory["parameters"] - 1
    # Per device: whole on each of a data axis, cut over an fsdp axis. Vocabulary padding on top.
    held = 4 * parameters / report["mesh"]["fsdp"]
    assert held <= memory["parameters"] < 1.01 * held + 2**20


def test_dry_runs_obey_overrides_and_either_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(_CONFIGS / "gpt2_small.py")
    one = _dry_run(
        capsys,
        *("--config", path, "--dry_run", "--json"),
        *("--config.train.batch_size=64", "--config.mesh.data=2", "--config.mesh.fsdp", "-1"),
    )
    assert one["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    assert one["tokens_per_step"] == 64 * 1024
    other = _dry_run(
        capsys,
        *(f"--config={path}", "--dry-run", "--json", "--config.train.batch-size", "64"),
        *("--config.mesh.data=2", "--config.mesh.fsdp=-1"),
    )
    assert other == one


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (("path=here",), None),
        (("path=none",), "data.path is not set"),
        (("path=away",), "no data folder away:"),
        (("path=none", "mixture=here=1,away=2,gone=1"), "no data folder away, gone:"),
    ],
)
def test_a_dry_run_notes_data_that_is_not_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: tuple[str, ...],
    message: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("tiny.py").write_text(_TINY, encoding="utf-8")
    flags = (f"--config.data.{setting}" for setting in data)
    assert main(["train", "--config", "tiny.py", "--dry_run", "--json", *flags]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["parameters"]
    assert err.count("\n") == (message is not None)
    assert message is None or err.startswith(f"note: {message}")


def test_a_dry_run_reads_as_text_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(_CONFIGS / "gpt2_small.py"), "--dry_run"]) == 0
    out, err = capsys.readouterr()
    assert "124,439,808" in out
    assert "mesh" in out
    assert "dtype            bfloat16 (compute.dtype=bfloat16)" in out
    assert "attention        cpu (compute.attention=auto)" in out
    assert err.startswith("note: data.path is not set")


def test_a_dry_run_makes_no_workdir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(_CONFIGS / "quickstart.py")
    _dry_run(
        capsys, "--config", path, "--workdir", str(tmp_path / "w"), "--dry_run", "--json",
        "--config.train.batch_size=16", f"--config.data.path={tmp_path / 'none'}",
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_show_knobs_lists_every_knob_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    path = _CONFIGS / "quickstart.py"
    for flag in ("--show_knobs", "--show-knobs"):
        assert main(["train", "--config", str(path), flag, "--config.train.seed=41"]) == 0
        out, err = capsys.readouterr()
        assert not err
        values = to_dict(load_config(path, ["train.seed=41"]))
        lines = out.splitlines()
        for knob in knobs():
            section, name = knob.key.split(".")
            at = lines.index(f"--config.{knob.key}={values[section][name]}")
            assert knob.help in lines[at + 1]
            assert all(str(choice) in lines[at + 1] for choice in knob.choices or ())


# A run.


def _main(*words: str) -> tuple[int, str, str]:
    """Runs a command; returns (status, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if "tensorboard" not in path.parts}


def test_text_becomes_shards_a_run_and_a_model_that_a_second_start_leaves_as_it_is(
    tmp_path: Path,
) -> None:
    """Runs on all eight fake devices, in one test so that only one worker of pytest trains."""
    config, text, data, workdir = (tmp_path / name for name in ("tiny.py", "a.txt", "data", "run"))
    config.write_text(_TINY, encoding="utf-8")
    text.write_text("To be, or not to be: é. " * 100, encoding="utf-8")
    status, out, err = _main(
        *("prepare", "--input", str(text), "--tokenizer", "byte", "--out", str(data), "--json")
    )
    assert status == 0, err
    assert json.loads(out)["vocab_size"] == 257

    words = ["train", "--config", str(config), "--workdir", str(workdir), "--json"]
    passages = [json.dumps({"text": f"To be {n} or not to be"}) for n in ("one", "two", "three")]
    (tmp_path / "lambada_test.jsonl").write_text("\n".join(passages), encoding="utf-8")
    overrides = [
        *(f"data.path={data}", f"eval.data={tmp_path}"),
        *("eval.tasks=lambada_openai", "eval.limit=2"),
    ]
    words += [f"--config.{override}" for override in overrides]
    status, out, err = _main(*words)
    assert status == 0, err
    results = json.loads(out)
    assert out.count("\n") == 1
    assert results["workdir"] == str(workdir)
    assert 0 < results["eval/loss"] < 10
    assert "step 2" in err

    saved = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    assert saved == to_dict(load_config(config, overrides))
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    steps = [row for row in rows if "loss" in row]
    assert [(row["step"], row["tokens"]) for row in steps] == [(1, 256), (2, 512)]
    assert all(row["learning_rate"] > 0 for row in steps)
    assert {"grad_norm", "tokens_per_second"} <= set(steps[-1])
    assert any("eval/loss" in row for row in rows)
    assert (workdir / "checkpoints" / "2").is_dir()
    assert (workdir / "samples" / "2.txt").is_file()
    assert any((workdir / "tensorboard").iterdir())

    loaded = load(workdir)
    assert (loaded.step, loaded.tokenizer.name) == (2, "byte")
    assert loaded.config == load_config(config, overrides)

    words_eval = ("--tasks", "lambada_openai", "--data", str(tmp_path), "--limit", "2", "--json")
    status, out, err = _main("eval", "--model", str(workdir), *words_eval)
    assert status == 0, err
    for name, value in json.loads(out)["tasks"]["lambada_openai"].items():
        if name in ("acc", "perplexity"):
            assert results[f"eval/lambada_openai/{name}"] == pytest.approx(value, rel=1e-5)
    assert {"eval/lambada_openai/acc", "eval/lambada_openai/perplexity"} < set(results)
    assert not [name for name in results if "stderr" in name or "count" in name]

    before = _contents(workdir)
    status, out, err = _main(*words)
    assert status == 0
    assert out.count("\n") == 1
    assert json.loads(out)["workdir"] == str(workdir)
    assert "is at step 2 of 2" in err
    assert _contents(workdir) == before


@pytest.mark.parametrize(("step", "noted"), [(4000, False), (4001, True)])
def test_a_step_to_stop_at_after_the_end_is_noted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
    noted: bool,
) -> None:
    monkeypatch.setattr("gpt2_jax.experiment.train", lambda *_, **__: {})
    flags = ["--workdir", str(tmp_path / "run"), "--stop_at_step", str(step)]
    assert main(["train", "--config", "quickstart", *flags]) == 0
    note = f"note: --stop_at_step {step} has no effect, because the run ends at train.total_steps"
    assert (note in capsys.readouterr().err) == noted
