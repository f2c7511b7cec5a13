"""A run is compared with published curves, which come with their sources."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.cli.main import main
from gpt2_jax.sweeps.report.against import compare, interpolated
from gpt2_jax.sweeps.report.references import load_reference, run_setting, shipped

_TOKENS = 524288  # of a step of configs/gpt2_small.py


def _write(folder: Path, losses: dict[int, float], *overrides: str, config: bool = True) -> Path:
    """Writes a run of GPT-2 small with validation losses by step."""
    folder.mkdir(parents=True)
    lines = []
    for step, loss in losses.items():
        lines.append({"step": step, "tokens": step * _TOKENS, "loss": loss})
        lines.append({"step": step, "eval/loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config:
        data = "data.path=runs/data/fineweb10B"
        run = config_lib.load_config("configs/gpt2_small.py", [data, *overrides])
        (folder / "config.json").write_text(json.dumps(config_lib.to_dict(run)))
    return folder


@pytest.mark.parametrize("name", shipped())
def test_references_have_sources_a_setting_and_falling_losses(name):
    found = load_reference(name)
    assert found.sources and all(re.match(r"https://github.com/\S+$", s) for s in found.sources)
    assert found.title and found.dataset and len(found.tokens) > 1
    assert (np.diff(found.losses) <= 0).all() and 2 < found.losses[-1] < 4
    per_step = found.setting["tokens_per_step"]
    assert (found.tokens % per_step == 0).all()
    assert found.tokens[-1] == per_step * found.setting["train.total_steps"]
    known = run_setting(config_lib.to_dict(config_lib.load_config("configs/gpt2_small.py")))
    assert {*found.setting} <= {*known}


def test_between_points_lines_are_straight_over_the_logarithm():
    reference = load_reference("llm.c")
    tokens = np.array([1000, np.sqrt(1000 * 1250), 1250, 10, 30000]) * _TOKENS
    found = interpolated(reference, tokens)
    assert found[:3] == pytest.approx([4.3170, (4.3170 + 4.1296) / 2, 4.1296])
    assert np.isnan(found[3:]).all()


@pytest.mark.parametrize(
    ("losses", "kind", "said"),
    [
        ({500: 5.40, 2000: 3.87}, "on track", "0.0115 above the 3.8585 of llm.c"),
        ({2000: 3.84, 19560: 3.27}, "on track", "10.3G tokens eval/loss is 3.2700, 0.0022 below"),
        ({250: 6.2, 2000: 4.05}, "behind", "llm.c had this loss at 752M tokens"),
        ({10000: 3.30}, "ahead", "llm.c had this loss at 7.88G tokens"),
        ({2000: 3.86, 25000: 3.2}, "on track", "1.05G tokens"),
        ({100: 7.0}, "unknown", "llm.c begins at 131M tokens"),
        ({25000: 3.2}, "unknown", "llm.c ends at 10.3G tokens, with a loss of 3.272"),
    ],
)
def test_the_verdict_is_one_sentence_with_its_numbers(tmp_path, losses, kind, said):
    standing = compare(_write(tmp_path / "run", losses), load_reference("llm.c"))
    assert standing.kind == kind and said in standing.verdict


def test_early_a_run_may_differ_by_more(tmp_path):
    early = compare(_write(tmp_path / "a", {1000: 4.39}), load_reference("llm.c"))
    late = compare(_write(tmp_path / "b", {15000: 3.37}), load_reference("llm.c"))
    assert (early.kind, late.kind) == ("on track", "behind")


def test_differing_settings_are_named(tmp_path):
    small = load_reference("llm.c")
    warnings = compare(_write(tmp_path / "same", {2000: 3.86}), small).warnings
    named = {each.split(" ")[0] for each in warnings}
    assert named <= {"train.total_steps", "schedule.min_learning_rate"}
    run = _write(tmp_path / "other", {2000: 3.86}, "train.batch_size=256", "data.path=runs/data/x")
    warnings = compare(run, small).warnings
    assert "tokens_per_step is 262144, and 524288 in llm.c." in warnings
    assert any("trained and validated on FineWeb" in each for each in warnings)
    assert "OpenWebText" in " ".join(compare(run, load_reference("nanogpt")).warnings)
    other = compare(_write(tmp_path / "bytes", {2000: 1.0}, "data.tokenizer=byte"), small)
    assert other.kind == "unknown" and other.verdict.startswith("Not comparable")
    bare = compare(_write(tmp_path / "bare", {2000: 3.86}, config=False), small)
    assert bare.warnings == ["The run has no config.json: nothing is known about its setting."]


def test_own_files_and_other_runs_are_references(tmp_path, capsys):
    run = _write(tmp_path / "run", {1000: 4.0, 2000: 3.5})
    (tmp_path / "own.csv").write_text(
        "tokens,step,val_loss\n524288000,1000,4.1\n1048576000,2,3.5\n"
    )
    (tmp_path / "own.json").write_text(json.dumps({"points": [[2e9, 3.0], [5e8, 4.1]]}))
    other = _write(tmp_path / "other", {1000: 4.1, 2000: 3.5}, "schedule.learning_rate=0.001")
    for name in ("own.csv", "own.json", "other"):
        assert main(["report", str(run), "--against", str(tmp_path / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["tokens"] == [1000 * _TOKENS, 2000 * _TOKENS]
        assert found["reference_loss"][0] == pytest.approx(4.1, abs=0.06)
    assert compare(run, load_reference(str(other))).warnings == [
        f"schedule.learning_rate is 0.0006, and 0.001 in {other}."
    ]


def test_the_verb_prints_the_sentence_and_writes_a_page(tmp_path, capsys):
    run = _write(tmp_path / "run", {500: 5.4, 1000: 4.3, 2000: 3.87})
    before = sorted(run.iterdir())
    assert main(["report", str(run), "--against", "llm.c", "--out", str(tmp_path / "o")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("On track: at 1.05G tokens") and "| 262M | 5.4000 | 5.3743 |" in out
    assert "https://github.com/karpathy/llm.c" in out and sorted(run.iterdir()) == before
    text = (tmp_path / "o" / "against.html").read_text()
    assert "On track" in text and "<svg" in text and ">nan" not in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nanoGTP", None, "no such reference; did you mean 'nanogpt'?; give llm.c or nanogpt, a"),
        ("x.csv", "step,loss\n1,2\n", "has the columns step, loss; it needs tokens, and one of"),
        ("x.csv", "tokens,loss\n1,abc\n", "a point must be [tokens, loss], two numbers"),
        ("x.csv", "tokens,loss\n", "has no points"),
        ("x.json", "{", "cannot read"),
        ("x.json", '{"points": [1]}', "points must be a list of [tokens, loss], not [1]"),
        ("x.json", '{"points": [[0, 3]]}', "two numbers with tokens greater than 0"),
        ("empty", "folder", "it has no metrics.jsonl with an eval/loss"),
    ],
)
def test_wrong_references_are_named(tmp_path, monkeypatch, capsys, name, content, message):
    run = _write(tmp_path / "run", {1000: 4.0}, config=False)
    monkeypatch.chdir(tmp_path)
    if content == "folder":
        Path(name).mkdir()
    elif content:
        Path(name).write_text(content)
    assert main(["report", str(run), "--against", name]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_folders_that_are_no_runs_are_named(tmp_path, capsys):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").write_text('{"step": 1, "tokens": 8, "loss": 5.0}\n')
    for folder, message in ((tmp_path, "is not the folder of a run"), ("new", "no eval/loss yet")):
        assert main(["report", str(tmp_path / folder), "--against", "llm.c"]) == 2
        assert message in capsys.readouterr().err
