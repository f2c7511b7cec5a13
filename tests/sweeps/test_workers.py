"""Measures what a second worker is worth; nothing else may run meanwhile."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import pytest

from gpt2_jax.parallel.cpu import available_cores
from tests.runs import SETTINGS, fill_lab

_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis, product, seeds

def get_sweep():
    overrides = {"eval.sample_tokens": 0, "train.total_steps": 1200, "checkpoint.every": 1200}
    return Sweep("config.py", seeds(4), overrides=overrides)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_on_a_core_each_take_little_more_than_half_the_time_of_one(tmp_path):
    cores = available_cores()
    if len(cores) < 2:
        pytest.skip("two workers on a core each need two cores")
    fill_lab(tmp_path)
    (tmp_path / "sweep.py").write_text(_SWEEP)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def seconds(out, workers):
        command = [sys.executable, "-m", "gpt2_jax", "sweep", "--sweep", "sweep.py", "--out", out]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--workers", str(workers)],
            cwd=tmp_path,
            env=cache | os.environ | SETTINGS,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[:workers]),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    seconds("warm", 1)  # compiles, which later points do not
    ratios = [seconds(f"two-{i}", 2) / seconds(f"one-{i}", 1) for i in range(3)]
    print(f"two workers take {', '.join(f'{ratio:.2f}' for ratio in ratios)} of the time of one")
    assert statistics.median(ratios) < 0.65
