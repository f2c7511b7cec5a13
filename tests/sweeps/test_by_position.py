"""The loss by position is read, averaged over seeds, and kept by records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt2_jax.cli.main import main
from gpt2_jax.sweeps.report.by_position import position_bands
from gpt2_jax.sweeps.report.outcomes import read_sweep
from gpt2_jax.sweeps.report.page import page
from gpt2_jax.sweeps.report.position_bins import binned, bins, unbinned
from gpt2_jax.sweeps.report.record import write_record
from tests.sweeps.made_sweep import STEPS, write_sweep

_FINALS = {"learned": [1.5, 1.6, 1.4], "rotary": [1.4, 1.5, 1.3]}


def _write(folder: Path, length: int = 64, step: int = STEPS) -> None:
    for path in sorted(folder.glob("points/*/run")):
        seed = int(path.parent.name[-1])
        losses = [3.0 / position**0.25 + 0.1 * seed for position in range(1, length + 1)]
        content = {"step": step, "loss_by_position": losses}
        (path / "loss_by_position.json").write_text(json.dumps(content))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 128, 1000, 1024])
def test_bins_are_all_positions_in_order(length):
    found = bins(length)
    assert [p for first, last in found for p in range(first, last + 1)] == [*range(1, length + 1)]
    assert len(found) <= 2 * np.log2(length) + 2
    means = [float(index) for index in range(len(found))]
    np.testing.assert_allclose(binned(unbinned(means, length)), means)


def test_bins_leave_out_positions_without_tokens():
    np.testing.assert_allclose(binned([1.0, None, 3.0, 5.0]), [1.0, np.nan, 3.0, 5.0])
    np.testing.assert_allclose(binned([1, 2, 3, 4, 6, None, 7, 7])[-2:], [6.0, 7.0])


def test_bands_are_t_intervals_over_the_seeds(tmp_path):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    _write(folder)
    learned, rotary = position_bands(read_sweep(folder).arms("main"))
    assert (learned.name, rotary.name, learned.count) == ("learned", "rotary", 3)
    values = [3.0 + 0.1 * seed for seed in range(3)]
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (learned.x[0], learned.center[0]) == (1.0, pytest.approx(3.1))
    assert (learned.low[0], learned.high[0]) == pytest.approx((low, high))
    text = page(read_sweep(folder))
    assert "Loss by position" in text and "nan" not in text


def test_a_record_has_the_same_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    _write(folder, 1024)
    write_record(folder, tmp_path / "r")
    before, after = (
        position_bands(read_sweep(place).arms("main")) for place in (folder, tmp_path / "r")
    )
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new.center, old.center, rtol=1e-5)
        np.testing.assert_allclose(new.x, old.x)
    files = [*(tmp_path / "r").rglob("loss_by_position.json")]
    assert len(files) == 6 and max(path.stat().st_size for path in files) < 500


def test_losses_of_an_earlier_validation_do_not_count(tmp_path):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    _write(folder, step=STEPS - 20)
    assert position_bands(read_sweep(folder).arms("main")) == []
    assert "Loss by position" not in page(read_sweep(folder))


def test_the_longest_windows_are_shown(tmp_path):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    _write(folder)
    for path in folder.glob("points/*/run"):
        for length in (128, 96):
            name = f"loss_by_position_at_{length}"
            content = {"step": STEPS, name: [2.5] * length}
            (path / f"{name}.json").write_text(json.dumps(content))
        config = json.loads((path / "config.json").read_text())
        config["model"]["context_length"] = 64
        (path / "config.json").write_text(json.dumps(config))
    sweep = read_sweep(folder)
    assert {len(point.loss_by_position) for point in sweep.points} == {128}
    assert "The models were trained on 64 positions." in page(sweep)


@pytest.mark.parametrize(
    "content", [{"loss_by_position": "x"}, {"loss_by_position": [1.0, 2.0], "length": 1}]
)
def test_damaged_files_are_named(tmp_path, capsys, content):
    folder = write_sweep(tmp_path / "s", _FINALS, baseline="learned")
    path = next(folder.glob("points/*/run")) / "loss_by_position.json"
    path.write_text(json.dumps({"step": STEPS, **content}))
    assert main(["report", str(folder)]) == 2
    assert str(path) in capsys.readouterr().err
