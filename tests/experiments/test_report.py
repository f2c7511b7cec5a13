"""The report: what a recorded measurement becomes."""

import importlib.util
import json
from pathlib import Path

import pytest

from experiments.benchmarks import plots, report
from experiments.benchmarks.results import Results
from experiments.benchmarks.summary import percentile, slope

_RECORDED = Path(__file__).with_name("recorded.json")


@pytest.fixture
def content():
    return json.loads(_RECORDED.read_text("utf-8"))


def test_a_recorded_measurement_becomes_tables(content):
    text = report.markdown("cpu", content, {"Bars": "cpu.png"})
    assert "![Bars](cpu.png)" in text
    # 6e9 FLOPs take 10 ms at the better of 500 and 600 GFLOP/s.
    assert "| gpt2_jax | step | 20 | 18 to 23 | 51,200 | 50 % | 1.00 |" in text
    assert "| torch eager | step | 25 | 24 to 27 | 40,960 | 40 % | 1.25 |" in text
    assert "MFU of the stated 1 TFLOP/s: gpt2_jax 30.0 %, torch eager 24.0 %." in text
    assert "gpt2_jax: compile 12.5 s, first step 13.0 s." in text
    assert "- commit 0123456789ab; 2026-01-02" in text


def test_the_report_says_what_disagrees_failed_or_was_left_out(content):
    text = report.markdown("cpu", content, {})
    assert "DISAGREE: transformers." in text
    assert "FAILED: torch eager: ended with status -9." in text
    assert "BUSY: other processes used 0.9 of 2 cores" in text
    assert text.count("BUSY") == 1
    assert "Left out: CTranslate2, because ctranslate2 is not installed in python3." in text


def test_the_report_says_how_times_grow(content):
    text = report.markdown("cpu", content, {})
    assert "gpt2_jax: step time grows with exponent 1.00; compile time with 0.50" in text


def test_plots_are_drawn_if_matplotlib_is_installed(content, tmp_path):
    drawn = plots.draw("cpu", content, tmp_path)
    if importlib.util.find_spec("matplotlib"):
        assert sorted(drawn.values()) == ["cpu.png", "cpu_scaling.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(drawn.values())


def test_slopes_and_percentiles():
    assert slope({"2": 4.0, "4": 16.0, "8": 64.0}) == pytest.approx(2)
    assert slope({"2": 4.0}) is None
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 10.0], 10) == pytest.approx(1.0)


def test_finished_cases_are_kept_until_what_they_depend_on_changes(content, tmp_path):
    path = tmp_path / "cpu.json"
    path.write_text(json.dumps(content), "utf-8")
    results = Results(path)
    stamp = content["cases"]["train"]["stamp"]
    assert results.is_done("train", stamp)
    assert not results.is_done("train", {**stamp, "source": "another"})
    assert not results.is_done("decode", stamp)  # a worker failed
    assert not results.is_done("load", stamp)  # never measured
    results.add("load", content["cases"]["train"], ["load", *content["cases"]])
    assert [*Results(path).cases] == ["load", *content["cases"]]
