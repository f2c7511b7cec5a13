"""Records hold what reports need after the sweep is gone, and stay small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.sweeps.report import record
from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.curves import seconds_at
from gpt2_jax.sweeps.report.markdown import markdown
from gpt2_jax.sweeps.report.outcomes import read_sweep
from gpt2_jax.sweeps.report.readme import lacking
from gpt2_jax.sweeps.report.record import LARGEST, write_record
from gpt2_jax.sweeps.report.thinning import VERIFIED_LINES, thinned
from gpt2_jax.sweeps.report.write import overview
from tests.sweeps.made_sweep import write_sweep

_FINALS = {"learned": [1.5, 1.6, 1.55], "rotary": [1.45, 1.56, 1.5], "none": [1.7, 1.8, 1.75]}
_ENDS = {("none", 1): ("diverged", "loss is not finite"), ("none", 2): ("failed", "error: disk")}
_README = "# Does it help?\n\n## Prediction, written before the runs\n\nYes.\n"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a sweep's folder below the current one, which has its sweep file and base config."""
    monkeypatch.chdir(tmp_path)
    for name in ("sweeps/positions.py", "configs/tiny.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('"""Which positions are best?\n\nMore."""\n')
    folder = write_sweep(tmp_path / "runs" / "s", _FINALS, baseline="learned", ends=_ENDS)
    shutil.copy("sweeps/positions.py", folder)
    return folder


def test_a_record_says_the_same_as_the_sweep_that_is_gone(sweep, tmp_path, capsys):
    before = read_sweep(sweep)
    out = tmp_path / "records" / "2026-11-28_positions"
    assert main(["report", str(sweep), "--record", str(out)]) == 0
    said = capsys.readouterr().out
    assert "9 points" in said and "README.md still lacks: prediction, setting" in said
    shutil.rmtree(sweep)
    after = read_sweep(out)
    assert [row.values for row in compare_arms(after, "main")] == [
        row.values for row in compare_arms(before, "main")
    ]
    for old, new in zip(before.points, after.points, strict=True):
        assert (old.name, old.state, old.message) == (new.name, new.state, new.message)
        assert old.config == new.config and old.overrides == new.overrides
        assert new.command.split()[:6] == [
            *("gpt2-jax", "train", "--config", "configs/tiny.py", "--workdir"),
            f"runs/{out.name}/{new.name}",
        ]
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("README.md", "sweep.json", "results.csv", "report.md", "report.html", "points"),
        "positions.py",
    }
    assert (out / "results.csv").read_text().count("\n") == 10
    assert str(tmp_path) not in "".join(p.read_text() for p in out.rglob("*") if p.is_file())
    assert main(["report", str(out), "--out", str(tmp_path / "again")]) == 0
    assert main(["report", "--all", str(out.parent)]) == 0
    assert (
        "| 2026-11-28_positions | Which positions are best? | main | rotary | 3 |"
        in capsys.readouterr().out
    )


def test_the_readme_is_the_authors_and_its_marked_parts_are_written_again(sweep, tmp_path):
    out = tmp_path / "r"
    write_record(sweep, out)
    path = out / "README.md"
    text = path.read_text()
    assert "| rotary | 3 |" in text and "gpt2-jax sweep --sweep r/positions.py --out runs/r" in text
    assert text.startswith("# Which positions are best?\n") and len(lacking(text)) == 5
    for line in [line for line in text.splitlines() if line.startswith("*To be written:*")]:
        text = text.replace(line, "All is said.")
    assert lacking(text) == []
    path.write_text(text.replace("| rotary | 3 |", "| rotary | 4 |"))
    write_record(sweep, out)
    assert path.read_text() == text
    path.write_text(_README)
    assert "still lacks: setting, result, meaning, agreement" in write_record(sweep, out)
    assert path.read_text() == _README


def test_the_question_is_the_title_of_reports(sweep, tmp_path):
    assert markdown(read_sweep(sweep)).startswith("# Which positions are best?\n")
    out = tmp_path / "r"
    out.mkdir()
    (out / "README.md").write_text(_README)
    write_record(sweep, out)
    assert "<h1>Does it help?</h1>" in (out / "report.html").read_text()
    for folder in (sweep, tmp_path / "sweeps"):
        (folder / "positions.py").write_text("def broken(:\n")
    assert markdown(read_sweep(sweep)).startswith("# Report of sweeps/positions.py\n")
    assert lacking(record_readme(sweep, tmp_path / "other")) == [
        *("question", "prediction", "setting", "result", "meaning"),
        "agreement with the literature",
    ]


def record_readme(sweep: Path, out: Path) -> str:
    write_record(sweep, out)
    return (out / "README.md").read_text()


def test_a_second_time_changes_nothing_and_follows_the_sweep(sweep, tmp_path):
    out = tmp_path / "r"
    write_record(sweep, out)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    write_record(sweep, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == first
    shutil.rmtree(sweep / "points" / "main-none-s2")
    write_record(sweep, out)
    assert not (out / "points" / "main-none-s2").exists()


def test_a_record_of_forty_points_is_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finals = {f"arm-{index}": [1.5 + index / 100] * 5 for index in range(8)}
    folder = write_sweep(tmp_path / "s", finals, baseline="arm-0")
    long = [
        {
            **{"step": step, "tokens": step * 1024, "loss": 4.123456954956055 / step},
            **{"grad_norm": 0.123456954956055, "learning_rate": 0.00123456},
            **{"tokens_per_second": 12345.67890123, "grad_norm/h": 1.0},
        }
        for step in range(1, 401)
    ]
    config = {"model": {f"knob_{index}": index for index in range(100)}}
    for path in folder.glob("points/*/run"):
        lines = [json.dumps(line) + "\n" for line in [*long, {"step": 400, "eval/loss": 1.5}]]
        (path / "metrics.jsonl").write_text("".join(lines))
        (path / "config.json").write_text(json.dumps(config, indent=2))
    write_record(folder, tmp_path / "r")
    size = sum(path.stat().st_size for path in (tmp_path / "r").rglob("*") if path.is_file())
    assert size < LARGEST


def test_thinned_lines_keep_the_start_the_end_and_the_time(sweep):
    random = np.random.default_rng(0)
    lines = [{"step": 1, "tokens": 10, "loss": 9.0, "grad_norm": 1.0, "learning_rate": 0.1}]
    for step in range(2, 301):
        line = {"step": step, "tokens": step * 10, "loss": 3 + 1 / step, "mfu": 0.3}
        lines.append(line | {"tokens_per_second": float(random.uniform(1, 9))})
        if step % 3 == 0:
            lines.append({"step": step, "eval/loss": 3 + random.normal()})
        lines.append({"step": step, "goodput": 0.9})
    kept = thinned(lines, 30)
    assert kept[:3] == [
        {**lines[0]},
        {name: value for name, value in lines[1].items() if name != "mfu"},
        {name: value for name, value in lines[3].items() if name != "mfu"},
    ]
    training = [line for line in kept if "loss" in line]
    assert len(training) == 30 and training[VERIFIED_LINES]["step"] > VERIFIED_LINES + 1
    validations = [line for line in kept if "eval/loss" in line]
    assert len(validations) == 30 and kept[-1] == lines[-2] and training[-1]["step"] == 300
    assert [line["step"] for line in kept] == sorted(line["step"] for line in kept)
    point = read_sweep(sweep).points[0]
    ends = np.array([3000.0])
    times = [seconds_at(_with(point, each), ends)[0] for each in (lines, kept)]
    assert times[1] == pytest.approx(times[0], rel=1e-5)
    assert thinned(lines[:9], 30) == [
        {name: value for name, value in line.items() if name != "mfu"}
        for line in lines[:9]
        if "goodput" not in line
    ]


def _with(point, lines):
    return type(point)(**{**vars(point), "lines": lines})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--record", "runs/s"], "is the sweep's own folder"),
        (["--record", "other"], "is not the folder of a record: it has model.bin"),
        (["--record", "sweeps/positions.py"], "is a file: name a folder"),
        (["--record", "another"], "holds the record of another sweep, whose metric is"),
        (["--record", "r", "--out", "o"], "cannot be combined"),
    ],
)
def test_wrong_places_are_named_and_nothing_is_written(sweep, tmp_path, capsys, words, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.bin").touch()
    write_sweep(tmp_path / "another", _FINALS, baseline="learned", metric="eval/acc")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", "runs/s", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_record_has_the_sweep_file_that_was_run(sweep, tmp_path, capsys):
    out, ran = tmp_path / "r", (sweep / "positions.py").read_bytes()
    (tmp_path / "sweeps" / "positions.py").write_text("changed after the run")
    write_record(sweep, out)
    assert (out / "positions.py").read_bytes() == ran and capsys.readouterr().err == ""
    (out / "positions.py").write_text("changed in the record")
    write_record(sweep, out)
    assert (out / "positions.py").read_text() == "changed in the record"
    assert "it is not the sweep file that was run, which is" in capsys.readouterr().err
    (sweep / "positions.py").unlink()
    write_record(sweep, out)
    assert "has no copy of the sweep file" in capsys.readouterr().err


def test_a_report_of_a_record_changes_nothing(sweep, tmp_path):
    out = tmp_path / "r"
    write_record(sweep, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["report", str(out)]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_large_records_get_a_warning(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(record, "LARGEST", 100)
    write_record(sweep, tmp_path / "r")
    assert "which is much for a repository" in capsys.readouterr().err


def test_what_the_runs_ran_on_is_the_sweeps_and_nothing_else(sweep, tmp_path):
    out, path = tmp_path / "r", sweep / "sweep.json"
    write_record(sweep, out)
    assert not read_sweep(out).environment
    assert "not recorded" in (out / "report.md").read_text()
    found = {"gpt2_jax": "0.1, commit first", "jax": "0.10"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"environment": found}))
    write_record(sweep, out)
    assert read_sweep(out).environment == found
    assert "| first |" in overview(tmp_path / "r")
