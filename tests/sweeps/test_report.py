"""Reports state what the results are, and refuse folders that hold none."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt2_jax.cli.main import main
from gpt2_jax.sweeps.report.cautions import cautions
from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.curves import bands, seconds_at
from gpt2_jax.sweeps.report.markdown import markdown
from gpt2_jax.sweeps.report.outcomes import read_sweep
from gpt2_jax.sweeps.report.page import page
from gpt2_jax.sweeps.report.write import overview
from tests.sweeps.made_sweep import STEPS, TOKENS, write_sweep

_RANDOM = np.random.default_rng(0)
_SEEDS = 0.03 * _RANDOM.normal(size=8)


def _values(shift: float, noise: float = 0.002, count: int = 5) -> list[float]:
    return [1.5 + shift + seed + noise * _RANDOM.normal() for seed in _SEEDS[:count]]


_FINALS = {
    "rotary": _values(-0.05),
    "learned": _values(0.0),
    "alibi": _values(0.001, 0.001),
    "none": _values(0.08),
    "relative": [1.54, 1.47, 1.55, 1.46, 1.58],
}
_ENDS = {
    ("none", 3): ("diverged", "loss is not finite since step 50"),
    ("relative", 2): ("failed", "error: out of <memory> & luck"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("made") / "sweep"
    return write_sweep(place, _FINALS, baseline="learned", ends=_ENDS)


def test_the_table_has_scipys_numbers_and_the_four_verdicts(folder):
    sweep = read_sweep(folder)
    rows = {row.arm: row for row in compare_arms(sweep, "main")}
    assert next(iter(rows)) == "learned" and rows["learned"].versus is None
    expected = stats.ttest_rel(_FINALS["rotary"], _FINALS["learned"])
    versus = rows["rotary"].versus
    assert versus.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert rows["rotary"].center == pytest.approx(np.mean(_FINALS["rotary"]))
    # The smallest of four p values counts four times.
    p = {arm: float(row.versus.found.test.p_value()) for arm, row in rows.items() if row.versus}
    smallest = min(p, key=lambda arm: p[arm])
    assert rows[smallest].versus.adjusted_p == pytest.approx(4 * p[smallest])
    verdicts = {arm: row.versus.verdict for arm, row in rows.items() if row.versus}
    assert verdicts == {
        "rotary": "better",
        "alibi": "equivalent",
        "none": "worse",
        "relative": "undecided",
    }
    assert rows["relative"].versus.more_seeds > 1
    assert versus.found.correlation > 0.9


def test_points_that_diverged_and_that_failed_are_told_apart(folder):
    sweep = read_sweep(folder)
    rows = {row.arm: row for row in compare_arms(sweep, "main")}
    assert (rows["none"].count("diverged"), rows["none"].count("failed")) == (1, 0)
    assert (rows["relative"].count("diverged"), rows["relative"].count("failed")) == (0, 1)
    # Means leave both out, and pairs remain.
    assert rows["none"].center == pytest.approx(np.mean([*_FINALS["none"][:3], _FINALS["none"][4]]))
    assert rows["none"].versus.found.paired and rows["none"].versus.found.count == 4
    text = markdown(sweep)
    assert "none: 1 of 5 points diverged" in text and "relative: 1 of 5 points failed" in text
    assert "| main-none-s3 | diverged | loss is not finite since step 50 |" in text
    assert "5 of 5" not in text and "| 1 of 5 | 0 of 5 |" in text


def test_arms_with_seeds_of_their_own_are_compared_without_pairs(tmp_path):
    ends = {("learned", 0): ("diverged", ""), ("rotary", 1): ("failed", "no space")}
    finals = {arm: _FINALS[arm] for arm in ("learned", "rotary")}
    sweep = read_sweep(write_sweep(tmp_path / "s", finals, baseline="learned", ends=ends))
    rows = compare_arms(sweep, "main")
    assert rows[1].versus is not None and not rows[1].versus.found.paired
    assert any("Welch" in sentence for sentence in cautions(sweep, "main", rows))


def test_eight_seeds_get_a_bootstrap_interval_too(tmp_path):
    finals = {"learned": _values(0.0, count=8), "rotary": _values(-0.05, count=8)}
    sweep = read_sweep(write_sweep(tmp_path / "s", finals, baseline="learned"))
    versus = compare_arms(sweep, "main")[1].versus
    assert versus is not None and versus.bootstrap is not None
    assert versus.bootstrap == pytest.approx(versus.interval, abs=0.002)
    assert "bootstrap" in markdown(sweep)


def test_curves_are_means_over_seeds_and_time_follows_the_speed(folder):
    sweep = read_sweep(folder)
    by_tokens = {band.name: band for band in bands(sweep.arms("main"), "loss", by_seconds=False)}
    rotary = by_tokens["rotary"]
    assert rotary.count == 5 and rotary.x[-1] == STEPS * TOKENS
    assert rotary.center[-1] == pytest.approx(np.mean(_FINALS["rotary"]))
    low, high = stats.ttest_1samp(_FINALS["rotary"], 0).confidence_interval()
    assert (rotary.low[-1], rotary.high[-1]) == pytest.approx((low, high))
    point = sweep.arms("main")["rotary"][1]
    assert seconds_at(point, rotary.x)[-1] == pytest.approx(STEPS * TOKENS / 5500)
    by_seconds = {band.name: band for band in bands(sweep.arms("main"), "loss", by_seconds=True)}
    # Up to the end of the fastest seed, beyond which not all are known.
    assert by_seconds["rotary"].x[-1] == pytest.approx(STEPS * TOKENS / 6000)


def test_tokens_to_the_baselines_loss(folder):
    rows = {row.arm: row for row in compare_arms(read_sweep(folder), "main")}
    tokens, seen = rows["rotary"].time_to_loss
    assert seen and 0.7 * STEPS * TOKENS < tokens < STEPS * TOKENS
    assert rows["none"].time_to_loss[1] is False
    assert "> " in markdown(read_sweep(folder))


class _Tags(HTMLParser):
    """Checks that every tag is closed, and collects attributes."""

    void = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(folder):
    text = page(read_sweep(folder))
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {"src", "href"} & {name for name, _ in tags.attributes}
    assert "http" not in text and "@import" not in text and "nan" not in text
    assert "out of &lt;memory&gt; &amp; luck" in text
    for part in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part[: part.index("</svg>")] + "</svg>")
    assert text.count('class="line c4"') == 3  # tokens, seconds and the legend
    assert len(text) < 200_000


def test_the_verb_writes_both_and_prints_the_table(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| rotary | 5 |" in out and "better" in out and "undecided (" in out
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}
    before = (tmp_path / "report.html").read_bytes()
    assert main(["report", str(folder), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_bytes() == before


def test_the_verdicts_are_said_in_words_first(folder):
    text = markdown(read_sweep(folder))
    before = text.split("| arm |")[0]
    better = np.mean(_FINALS["learned"]) - np.mean(_FINALS["rotary"])
    assert f"- Better than learned: rotary by {better:.4f}." in before
    assert "- Worse than learned: none by 0.08" in before
    assert "- As good as learned within 0.01: alibi." in before
    assert "- Undecided: relative (" in before and "25 points of 200K tokens (23 done" in before


def test_without_a_baseline_the_spread_over_seeds_is_said(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path / "s", {"x": _values(0, count=8)}, baseline=None))
    values = [point.scores["eval/loss"] for point in sweep.points]
    said = f"x: the standard deviation over 8 seeds is {np.std(values, ddof=1):.4f} ["
    assert said in markdown(sweep) and said in page(sweep)


def test_results_without_metrics_files_are_read_from_the_table(tmp_path):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned", ends=_ENDS)
    before = [row.center for row in compare_arms(read_sweep(folder), "main")]
    for path in folder.rglob("metrics.jsonl"):
        path.unlink()
    sweep = read_sweep(folder)
    assert [row.center for row in compare_arms(sweep, "main")] == before
    assert "Loss curves" not in page(sweep)


def test_a_sweep_that_has_only_begun_has_a_report(tmp_path):
    ends = {(arm, seed): ("waiting", "") for arm in _FINALS for seed in range(5)}
    del ends[("learned", 0)]
    sweep = read_sweep(write_sweep(tmp_path / "s", _FINALS, baseline="learned", ends=ends))
    assert "4 not finished" in markdown(sweep) and "nan" not in page(sweep)


def test_all_sweeps_of_a_folder_become_one_table(folder, tmp_path, capsys):
    write_sweep(tmp_path / "a" / "one", {"x": _values(0), "y": _values(-0.1)}, baseline="x")
    write_sweep(
        tmp_path / "b", {"x": [0.5, 0.6], "z": [0.5, 0.7]}, baseline=None, metric="eval/acc"
    )
    lines = overview(tmp_path).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a/one", "a/one", "b", "b"]
    assert "better" in lines[3]
    assert main(["report", "--all", str(tmp_path)]) == 0
    assert "a/one" in capsys.readouterr().out


def _damage(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sweep.json", {"baseline": "lerned"}, "'lerned' is no arm; did you mean 'learned'?"),
        ("sweep.json", {"metric": "eval/los"}, "no point has the metric 'eval/los'; they have"),
        ("sweep.json", {"delta": -1}, "delta must be null or a number greater than 0, not -1"),
        ("sweep.json", {"stages": "main"}, "stages must be a list, not 'main'"),
        ("points/main-none-s0/point.json", {"seed": "0"}, "seed must be an integer, not '0'"),
        ("points/main-none-s0/status.json", {"state": "ok"}, "state must be one of done, diverged"),
    ],
)
def test_wrong_values_are_named(tmp_path, capsys, name, values, message):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    _damage(folder, name, **values)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and name in error
    assert not (folder / "report.md").exists()


def test_damaged_files_are_named(tmp_path, capsys):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    path = folder / "points" / "main-none-s0" / "run" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 2')  # being written
    assert main(["report", str(folder)]) == 0
    path.write_text("{torn\n" + whole)
    capsys.readouterr()
    for damaged, part in ((path, "line 1 is damaged"), (folder / "results.csv", "cannot read")):
        assert main(["report", str(folder)]) == 2
        error = capsys.readouterr().err
        assert str(damaged) in error and part in error and error.count("\n") == 1
        path.write_text(whole)
        (folder / "results.csv").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report needs exactly one of: a folder, which is that of a sweep"),
        (["sweep", "--all", "all"], "report needs exactly one of"),
        (["--all", "all", "--out", "out"], "--out is for the report of one sweep"),
        (["--all", "all", "--png"], "--png is for the report of one sweep"),
        (["--verify", "empty", "--record", "r"], "--record is for the report of one sweep"),
        (["--all", "all", "--json"], "--json is for the report of one sweep, or of a run with"),
        (["empty", "--record", "r", "--png"], "--record and --png cannot be combined"),
        (["empty", "--point", "x"], "--point is for --verify DIR"),
        (["sweep", "--steps", "3"], "--steps is for --verify DIR"),
        (["--verify", "empty", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["--verify", "empty"], "empty is not the folder of a sweep"),
        ([""], "the folder of the sweep is empty"),
        (["missing"], "there is no folder missing"),
        (["empty"], "empty is not the folder of a sweep, because it has no sweep.json"),
        (["--all", "empty"], "--all empty has no sweeps"),
        (["--all", "missing"], "--all missing: there is no such folder"),
        (["s3://b/x"], "must be a folder on a disk, or gs://BUCKET/FOLDER"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
