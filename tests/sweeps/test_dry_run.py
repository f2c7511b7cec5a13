"""A dry run says what a sweep will cost, where the time is from, and what it can show."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.cli.sweep import _planner
from gpt2_jax.sweeps import arms, axis, best_of, logspace2, product, seeds
from gpt2_jax.sweeps.cost import Planner, as_text, estimate
from gpt2_jax.sweeps.design import design_json, design_of, design_text
from gpt2_jax.sweeps.folder import DIVERGED, DONE, Status, SweepFolder
from gpt2_jax.sweeps.report.noise import deviation_of
from gpt2_jax.sweeps.runner import points_so_far
from gpt2_jax.sweeps.statistics.power import seeds_needed
from tests.cli.refusals import refused
from tests.sweeps.made_sweep import write_sweep

_POSITIONS = axis("model.position", ["learned", "alibi", "rotary"])
_LEARNED = {"model.position": "learned"}


def test_what_three_seeds_find_is_said_in_deviations_and_in_units_of_the_metric(house):
    two = axis("model.position", ["learned", "rotary"])
    stages = house.stages(product(two, seeds(3)), baseline=_LEARNED, delta=0.005)
    assert "on 3 seeds, and finds differences of 3.26 standard" in design_text(design_of(stages))
    assert "unknown; give --noise" in design_text(design_of(stages))
    design = design_of(stages, 0.002, "as given")
    assert design.effect * 0.002 == pytest.approx(0.00653, abs=1e-5)
    assert "in units of eval/loss: 0.00653" in design_text(design)
    needed = seeds_needed(0.002, 0.005, equivalence=True)
    assert f"delta=0.005 from none: {needed} seeds" in design_text(design)


def test_several_arms_need_larger_differences_and_one_seed_finds_none(house):
    stages = house.stages(product(_POSITIONS, seeds(5)), baseline=_LEARNED)
    design = design_of(stages)
    assert (design.arms, design.seeds) == (2, 5) and design.effect > design.alone
    assert f"one arm alone: {design.alone:.2f}" in design_text(design)
    single = design_of(house.stages(_POSITIONS, baseline=_LEARNED))
    assert single.seeds == 1 and math.isinf(single.effect)
    assert "tell no difference from noise" in design_text(single)
    assert design_json(single)["effect"] is None
    assert "names no baseline" in design_text(design_of(house.stages(_POSITIONS)))


def test_of_a_tuned_sweep_the_confirmation_counts(house):
    rules = arms({"adamw": {}, "lion": {"optimizer.name": "lion"}})
    rates = axis("schedule.learning_rate", logspace2(-10, -8))
    tune = product(rules, rates, seeds(1, first=100))
    stages = house.stages(
        stages=[tune, best_of("tune", per=rules, then=seeds(4))],
        baseline="adamw",
        overrides={"schedule.min_learning_rate": 0.0},
    )
    design = design_of(stages)
    assert (design.stage, design.arms, design.seeds) == ("confirm", 1, 4)


def test_noise_is_a_number_or_that_of_a_finished_sweep(tmp_path):
    random = np.random.default_rng(0)
    base, other = random.normal(3, 0.01, 6), random.normal(3, 0.01, 6)
    both = write_sweep(tmp_path / "both", {"a": base, "b": other}, baseline="a")
    deviation, source = deviation_of(str(both), "eval/loss")
    assert deviation == pytest.approx(np.std(other - base, ddof=1)) and "6 paired" in source
    alone = write_sweep(tmp_path / "alone", {"a": base}, baseline=None)
    deviation, source = deviation_of(str(alone), "eval/loss")
    assert deviation == pytest.approx(math.sqrt(2) * np.std(base, ddof=1))
    assert source.startswith("sqrt(2) times that of 6 runs")
    assert deviation_of("0.25", "eval/loss") == (0.25, "as given")


def test_the_time_is_measured_or_planned_and_it_is_said_which(house):
    stages = house.stages(seeds(3))
    folder = SweepFolder(house.out)
    planner = Planner("2 x h100-sxm", lambda configs: [(60.0, 120.0) for _ in configs])
    report = estimate(stages, None, points_so_far(stages, None), workers=1, planner=planner)
    assert report["planned_seconds_left"] == (180.0, 360.0) and report["seconds_left"] is None
    assert "time as planned: 3m00s to 6m00s" in as_text(report, [])
    house.plan({2: [2]})
    house.run(stages)
    report = estimate(stages, folder, points_so_far(stages, folder), workers=2, planner=planner)
    assert report["planned_seconds_left"] == (
        60.0,
        120.0,
    )  # of one point: the other worker has none
    text = as_text(report, [])
    assert "(median of 2 points in" in text and "from shapes alone" in text


def test_a_point_that_diverged_says_nothing_of_the_speed(house):
    stages, folder = house.stages(seeds(3)), SweepFolder(house.out)
    points = stages.known["main"]
    for point in points:
        folder.write_point(point, "tiny.py")
    folder.write_status(points[0].name, Status(76, DIVERGED, seconds=1.0))  # at its first step
    assert estimate(stages, folder, points, workers=1)["tokens_per_second"] is None
    folder.write_status(points[1].name, Status(0, DONE, seconds=64.0))
    report = estimate(stages, folder, points, workers=1)
    assert report["tokens_per_second"] == points[1].tokens / 64
    assert report["seconds_left"] == 64 and "median of 1 points" in report["speed_is"]


@pytest.mark.parametrize(
    ("flags", "gpus", "workers", "seconds"),
    [
        ((), "0,1", 1, 24),
        (("--workers=3",), "", 3, 8),
        (("--devices_per_point=2",), "0,1,2,3,4", 2, 16),
        (("--devices_per_point=2",), "0", None, 24),  # they are in another machine
        (("--devices_per_point=2", "--workers=2"), "0", 2, 16),
        (("--engine=slurm",), "0,1", None, 24),
        (("--engine=slurm", "--devices_per_point=1"), "0,1", None, 24),
        (("--engine=slurm", "--workers=2"), "", 2, 16),
        (("--engine=slice",), "0,1", 1, 24),
    ],
)
def test_as_many_points_are_counted_at_a_time_as_would_run(
    house, capsys, monkeypatch, flags, gpus, workers, seconds
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    sweep = "from gpt2_jax.sweeps import *\ndef get_sweep(): return Sweep('tiny.py', seeds(3))"
    (house.folder / "sweep.py").write_text(sweep)
    words = ["sweep", "--sweep", "sweep.py", "--dry_run", "--tokens_per_second=64", *flags]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["workers"], report["seconds_left"]) == (workers, seconds)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"about {seconds}s for 1,536 tokens, {workers or 1} at a time" in text
    assert ("is not known here: the time is that of one after the other" in text) == (not workers)


def test_a_chip_is_planned_for_by_the_command(house, capsys):
    sweep = "from gpt2_jax.sweeps import *\ndef get_sweep(): return Sweep('tiny.py', seeds(3))"
    (house.folder / "sweep.py").write_text(sweep)
    words = ["sweep", "--sweep", "sweep.py", "--dry_run", "--json", "--noise=0.1"]
    assert main([*words, "--chip", "h100"]) == 0
    report = json.loads(capsys.readouterr().out)
    best, worst = report["planned_seconds_left"]
    assert report["planned_for"] == "1 x h100-sxm" and 0 < best < worst
    assert report["design"]["deviation"] == 0.1
    planner = _planner("a100", 8)
    assert planner is not None and planner.devices == "8 x a100-80gb"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--dry_run", "--chip", "h10"), "did you mean 'h100'?"),
        (("--chip", "h100"), "--chip needs --dry_run"),
        (("--noise", "1"), "--noise needs --dry_run"),
        (("--dry_run", "--noise", "-1"), "--noise must be greater than 0"),
        (("--dry_run", "--noise", "nan"), "--noise must be greater than 0"),
        (("--dry_run", "--noise", "nowhere"), "there is no folder nowhere"),
        (("--dry_run", "--noise", "other"), "has compared eval/accuracy"),
        (("--dry_run", "--noise", "single"), "has no arm with two values"),
        (("--dry_run", "--noise", "equal"), "its runs do not differ at all"),
    ],
)
def test_wrong_flags_of_a_dry_run_are_refused(house, capsys, flags, problem):
    write_sweep(house.folder / "other", {"a": [1.0, 2.0]}, baseline=None, metric="eval/accuracy")
    write_sweep(house.folder / "single", {"a": [1.0]}, baseline=None)
    write_sweep(house.folder / "equal", {"a": [1.0, 1.0]}, baseline=None)
    sweep = "from gpt2_jax.sweeps import *\ndef get_sweep(): return Sweep('tiny.py', seeds(2))"
    (house.folder / "sweep.py").write_text(sweep)
    words = ("sweep", "--sweep", "sweep.py", "--out", "out", *flags)
    assert problem in refused(house.folder, capsys, *words)
