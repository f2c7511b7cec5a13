"""Reports as JSON, as images, and over many sweeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from scipy import stats

from gpt2_jax.cli.main import main
from tests.sweeps.made_sweep import write_sweep

FINALS = {
    "learned": [1.50, 1.52, 1.47, 1.55, 1.49],
    "rotary": [1.452, 1.468, 1.421, 1.499, 1.441],
    "none": [1.58, 1.61, 1.55, 1.63, 1.57],
}
_ENDS = {("none", 3): ("diverged", "loss is not finite since step 50")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("made") / "sweep"
    return write_sweep(place, FINALS, baseline="learned", ends=_ENDS)


def test_numbers_as_json(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path), "--json"]) == 0
    arms = json.loads(capsys.readouterr().out)["stages"]["main"]["arms"]
    versus = arms["rotary"]["versus_baseline"]
    expected = stats.ttest_rel(FINALS["rotary"], FINALS["learned"])
    assert versus["p"] == pytest.approx(expected.pvalue) and versus["verdict"] == "better"
    assert versus["interval"] == pytest.approx([*expected.confidence_interval()])
    assert arms["learned"]["versus_baseline"] is None
    assert arms["learned"]["values"] == {str(n): x for n, x in enumerate(FINALS["learned"])}
    assert arms["none"]["points"] == {"done": 4, "diverged": 1, "failed": 0, "waiting": 0}


def test_images_of_all_charts(folder, tmp_path, monkeypatch):
    names = []
    for place in (tmp_path / "a", tmp_path / "b"):
        assert main(["report", str(folder), "--out", str(place), "--png"]) == 0
        names = sorted(path.name for path in place.glob("*.png"))
    assert names == ["report_differences.png", "report_time.png", "report_tokens.png"]
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) < 200_000
        assert content == (tmp_path / "b" / name).read_bytes()


def test_images_without_matplotlib_name_the_extra(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", str(folder), "--out", str(tmp_path / "o"), "--png"]) == 2
    assert "--png needs the plots extra" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_damaged_sweep_does_not_hide_the_others(folder, tmp_path, capsys):
    write_sweep(tmp_path / "good", {"x": [1.0, 1.1]}, baseline="x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "sweep.json").write_text("{")
    assert main(["report", "--all", str(tmp_path)]) == 0
    out, error = capsys.readouterr()
    assert "| good |" in out and "left out: cannot read" in error
    (tmp_path / "good" / "sweep.json").unlink()
    assert main(["report", "--all", str(tmp_path)]) == 2
