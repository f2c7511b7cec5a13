"""Kills a sweep that really trains, and compares its results with those of one that was not."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import SETTINGS, fill_lab

_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis, product, seeds

def get_sweep():
    points = product(axis("schedule.learning_rate", [1e-3, 3e-3, 1e-2]), seeds(4))
    overrides = {"eval.sample_tokens": 0, "checkpoint.every": 4}
    baseline = {"schedule.learning_rate": 1e-3}
    return Sweep("config.py", points, overrides=overrides, baseline=baseline)
"""


def _start(lab: Path, out: str) -> subprocess.Popen[str]:
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(lab / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = ["sweep", "--sweep", "sweep.py", "--out", out, "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "gpt2_jax", *words],
        cwd=lab,
        env=cache | os.environ | SETTINGS,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill_trainers(out: Path) -> None:
    """Kills the trainers too, which otherwise save and end when the sweep is killed."""
    for path in out.glob("points/*/run/lock"):
        try:
            os.kill(json.loads(path.read_bytes())["pid"], signal.SIGKILL)
        except (ValueError, OSError):
            continue


def _check_compiled_once(out: Path, shown: str) -> None:
    """Checks that only the two points that began at the same time have compiled the train step."""
    notes = [json.loads(path.read_bytes()) for path in out.glob("points/*/run_info.json")]
    compiled = [note for note in notes if "jit(train_step)" in note["compiled"]]
    loaded = [note for note in notes if "jit(train_step)" in note["loaded"]]
    assert len(notes) == 12 and len(compiled) <= 2 and len(loaded) >= 10
    totals = [sum(len(note[kind]) for note in notes) for kind in ("compiled", "loaded")]
    assert f"compiled {totals[0]} programs, loaded {totals[1]} from the cache" in shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twelve_points_killed_at_five_moments_give_the_results_of_a_sweep_that_was_not(tmp_path):
    fill_lab(tmp_path)
    (tmp_path / "sweep.py").write_text(_SWEEP)
    began = time.monotonic()
    whole = _start(tmp_path, "whole")
    _, errors = whole.communicate(timeout=900)
    assert whole.returncode == 0, errors
    seconds = time.monotonic() - began
    _check_compiled_once(tmp_path / "whole", errors)
    moments, out = random.Random(15), tmp_path / "out"
    done: dict[str, dict[str, object]] = {}
    for kill in range(5):
        with _start(tmp_path, "out") as process:
            time.sleep(moments.uniform(0.05, 0.3) * seconds)
            process.kill()
        if kill % 2:
            _kill_trainers(out)
        for path in out.glob("points/*/status.json"):
            status = json.loads(path.read_text())
            assert status["state"] in ("done", "waiting")
            if status["state"] == "done":  # and stays as it is
                assert done.setdefault(path.parts[-2], status) == status
    process = _start(tmp_path, "out")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    expected = (tmp_path / "whole" / "results.csv").read_bytes()
    assert (out / "results.csv").read_bytes() == expected
    lines = list(csv.DictReader(expected.decode().splitlines()))
    assert len(lines) == 12 and {line["state"] for line in lines} == {"done"}
    assert len({line["eval/loss"] for line in lines}) == 12
    assert done  # otherwise every kill came before the first point had ended
    for name, status in done.items():
        assert json.loads((out / "points" / name / "status.json").read_text()) == status
