"""Runs are planned by their shapes, each shape once."""

from __future__ import annotations

import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning import runs
from gpt2_jax.planning.plan import analytic_plan


def _config(**sections):
    short = {"schedule": {"warmup_steps": 10}, "model": {"num_layers": 2, "vocab_size": 256}}
    return config_lib.from_dict(short | sections)


def test_runs_of_one_shape_are_planned_once_and_take_as_long_as_their_steps(monkeypatch):
    planned = []

    def plan(config, *args):
        planned.append(config)
        return analytic_plan(config, *args)

    monkeypatch.setattr(runs, "analytic_plan", plan)
    configs = [_config(train={"seed": seed, "total_steps": 100}) for seed in range(3)]
    configs.append(_config(train={"total_steps": 300}))
    configs.append(_config(train={"batch_size": 16, "total_steps": 100}))
    seconds = runs.run_seconds(configs, chip_named("h100"), 1)
    assert len(planned) == 2 and seconds[0] == seconds[1] == seconds[2]
    assert seconds[3] == pytest.approx([3 * each for each in seconds[0]])
    best, worst = seconds[0]
    assert 0 < best < worst


def test_devices_of_a_run_that_sets_no_mesh_are_laid_out():
    (one,) = runs.run_seconds([_config()], chip_named("h100"), 1)
    (two,) = runs.run_seconds([_config()], chip_named("h100"), 2)
    assert two[0] < one[0]
