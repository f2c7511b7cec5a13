"""The coordinate check passes with muP, and shows that the standard parametrization does not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.mup import coordinate_check
from experiments.mup.coordinate_check import OUTPUTS, Setting, check, main, slopes


def test_slopes_are_the_powers_of_the_width():
    powers = np.array([0.0, 0.5, -0.5, 1.0])
    sizes = {width: np.full((2, 3, 4), 7.0 * width**powers) for width in (64, 128, 512)}
    np.testing.assert_allclose(slopes(sizes), np.broadcast_to(powers, (2, 3, 4)), atol=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_activations_are_as_large_at_every_width_with_mup_and_not_without():
    result = check(Setting())
    print(coordinate_check.table(result))
    assert all(abs(slope) <= 0.1 for slope in result["slopes"]["muP"].values())
    assert max(map(abs, result["slopes"]["standard"].values())) > 0.3
    assert result["passed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--widths", "64"], "--widths must name two widths or more"),
        (["--widths", "64", "100"], "--widths 100 must be a multiple of --head_dim 32"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--optimizer", "adafactor"], "optimizer.name=adafactor has no learning rates for muP"),
        (["--out", "README.md"], "--out README.md: cannot be written to"),
    ],
)
def test_a_wrong_command_is_one_line(words, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--out", str(out), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
def test_the_command_writes_its_result(tmp_path, monkeypatch, capsys):
    sizes = {
        arm: {name: {64: [1.0, 1.0], 128: [1.0, 2.0]} for name in OUTPUTS}
        for arm in coordinate_check.ARMS
    }
    numbers = {"muP": dict.fromkeys(OUTPUTS, 0.01), "standard": dict.fromkeys(OUTPUTS, 0.9)}
    made = {"slopes": numbers, "deviations": numbers, "sizes": sizes, "passed": True}
    monkeypatch.setattr(
        coordinate_check, "check", lambda setting: {"setting": setting._asdict(), **made}
    )
    words = ["--out", str(tmp_path), "--widths", "64", "128", "--steps", "1"]
    assert main(words) == 0
    assert "| mlp | +0.010" in capsys.readouterr().out
    written = json.loads((tmp_path / "coordinate_check.json").read_text())
    assert written["passed"] and written["setting"]["widths"] == [64, 128]
    made["passed"] = False
    assert main(words) == 1
