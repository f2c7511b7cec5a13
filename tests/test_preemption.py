"""SIGTERM at any moment: status 75, the last step is saved, and none is repeated or skipped."""

from __future__ import annotations

import random
import re
import signal

import pytest

from tests.recorded import recorded
from tests.runs import (
    NO_SAMPLE,
    finish,
    lines,
    losses,
    make_lab,
    start_group,
    train,
    wait_for_lines,
)
from tests.soak import begin, soak

_NO_END = ("--config.train.total_steps=1000000", "--config.checkpoint.every=1000000")
_FLAGS = (*_NO_END, "--config.eval.every=1", NO_SAMPLE)
_STOPS = 10


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory, "preemption")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("processes", [1, 2])
def test_ten_stops_by_sigterm_repeat_and_skip_nothing(lab, processes):
    draw, workdir, records = random.Random(processes), lab / f"of-{processes}", lab / f"{processes}"
    records.mkdir()
    settings = {"env": {"RECORD_FOLDER": str(records)}, "module": "tests.recorded"}
    stopped = 0
    for _ in range(_STOPS):
        group = start_group(lab, workdir, *_FLAGS, processes=processes, **settings)
        wait_for_lines(workdir, group, 2 * stopped + draw.randrange(1, 6))  # two lines a step
        draw.choice(group).send_signal(signal.SIGTERM)
        errors = finish(group, status=75)[0]
        assert f"from step {stopped} to" in errors
        stopped = int(re.search(r"stopped and saved at step (\d+) of", errors)[1])
        saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
        assert max(saved) == stopped == len(losses(workdir))
        # Each step is validated once, except the last if its validation was interrupted.
        validated = [line["step"] for line in lines(workdir) if "eval/loss" in line]
        assert validated in ([*range(1, stopped + 1)], [*range(1, stopped)])
    print(f"{processes} process(es): stopped {_STOPS} times in {stopped} steps")
    batches = recorded(records)
    assert set(range(stopped)) <= set(batches)

    whole = lab / f"whole-{processes}"
    mesh = [f"--config.mesh.data={processes}"]  # as the group had it
    train(lab, whole, *_FLAGS, *mesh, "--stop_at_step", str(stopped), devices=processes)
    ours, expected = losses(workdir), losses(whole)
    assert (
        ours == expected
        if processes == 1
        else max(abs(a / b - 1) for a, b in zip(ours, expected, strict=True)) < 1e-5
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_killed_at_seeded_moments_end_like_one_that_was_not(tmp_path):
    begin(tmp_path)
    kills = sum(soak(tmp_path, seed).total() for seed in range(3))
    print(f"3 runs killed {kills} times ended like one that was not")
    assert kills >= 3
