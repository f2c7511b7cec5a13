"""Tests what a sweep does with points that succeed, fail, diverge or are stopped."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import gpt2_jax
from gpt2_jax.errors import Preempted, UserError
from gpt2_jax.files.lock import FileLock
from gpt2_jax.parallel.cpu import available_cores
from gpt2_jax.sweeps import arms, axis, best_of, logspace2, product, seeds
from gpt2_jax.sweeps.cost import estimate
from gpt2_jax.sweeps.engines import local
from gpt2_jax.sweeps.engines.attempts import judge
from gpt2_jax.sweeps.engines.slots import Slot, make_slots, visible_gpus
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.runner import points_so_far
from tests.sweeps.sweeping import ATTEMPTS, TOKENS

_RATES = product(axis("schedule.learning_rate", logspace2(-10, -9)), seeds(3))
_FIXED = {"schedule.min_learning_rate": 0.0}


def _names(stages):
    return [point.name for points in stages.known.values() for point in points]


def test_every_point_is_run_once_and_its_results_are_in_the_order_of_the_sweep(house):
    stages = house.stages(_RATES, overrides=_FIXED, baseline="schedule.learning_rate=0.001953125")
    assert house.run(stages, make_slots(3, None)) == dict(done=6, diverged=0, failed=0, waiting=0)
    table = house.table()
    assert [line["name"] for line in table] == _names(stages)
    assert {line["state"] for line in table} == {"done"}
    assert [int(line["seed"]) for line in table] == [*range(3)] * 2
    assert table[4]["steps"] == "2" and table[4]["tokens"] == str(2 * TOKENS)
    assert float(table[4]["eval/loss"]) == 2.0**-9 + 0.001
    assert all(len(house.starts(name)) == 1 for name in _names(stages))
    first = _names(stages)[0]
    point = house.read(first, "point.json")
    assert point["arm"] == "schedule.learning_rate=0.0009765625" and point["stage"] == "main"
    assert point["overrides"]["train.seed"] == point["seed"] == 0
    assert first.endswith(point["config_hash"][:8])
    assert point["command"].startswith(f"gpt2-jax train --config tiny.py --workdir {house.out}/")
    status = house.read(first, "status.json")
    assert status["exit_status"] == 0 and status["attempts"] == 1 and status["seconds"] > 0
    before = (house.out / "results.csv").read_bytes()
    assert house.run(stages)["done"] == 6  # again: nothing is left to do
    assert all(len(house.starts(name)) == 1 for name in _names(stages))
    assert (house.out / "results.csv").read_bytes() == before


# The last is stopped again and again, but not forever; no point without an entry is.
_STATUSES = [*ATTEMPTS, ([75] * 4, "waiting"), ([], "done")]


def test_an_exit_status_decides_about_its_point_and_no_other(house, monkeypatch):
    monkeypatch.setattr(local, "_MOST_PREEMPTIONS", 4)
    house.plan({seed: statuses for seed, (statuses, _) in enumerate(_STATUSES)})
    counts = house.run(house.stages(seeds(len(_STATUSES))), make_slots(2, None))
    assert counts == collections.Counter(state for _, state in _STATUSES)
    for line, (statuses, state) in zip(house.table(), _STATUSES, strict=True):
        status = house.read(line["name"], "status.json")
        assert line["state"] == status["state"] == state, statuses
        assert len(house.starts(line["name"])) == status["attempts"] == (len(statuses) or 1)
        last = statuses[-1] if statuses else 0
        assert status["exit_status"] == (128 - last if last < 0 else last)
        assert status["message"] == ("" if state == "done" else f"the reason for {last}")
        assert (line["eval/loss"] != "") == (state == "done")
        assert line["steps"] == ("2" if state in ("done", "diverged") else "")
        if state == "failed":
            said = f"exit status {status['exit_status']}: the reason for {last}"
            assert any(line["name"] in each and said in each for each in house.log)


def test_a_start_tries_again_what_the_start_before_has_given_up_and_as_often(house):
    house.plan({0: [77, 77, 77, 0]})
    stages = house.stages(seeds(1))
    assert house.run(stages)["failed"] == 1
    assert house.run(stages)["done"] == 1


def test_a_sweep_that_stops_repeats_nothing_and_keeps_what_a_restart_may_help():
    for exit_status, earlier, state in (
        (75, [], "waiting"),
        (77, [], "waiting"),
        (143, [78], "waiting"),
        (78, [77], "failed"),
        (76, [], "diverged"),
        (0, [137], "done"),
    ):
        assert judge(exit_status, earlier, stopping=True) == (state, False)
    assert judge(75, [75, 137, 75], most_preemptions=4) == ("waiting", True)
    assert judge(75, [75, 75, 75], most_preemptions=4) == ("waiting", False)


def test_the_best_of_each_arm_is_run_again_on_fresh_seeds(house):
    rules = arms({"adamw": {}, "lion": {"optimizer.name": "lion"}})
    rates = axis("schedule.learning_rate", logspace2(-10, -9))
    tune = product(rules, rates, seeds(1, first=100))
    stages = house.stages(
        stages=[tune, best_of("tune", per=rules, then=seeds(2))],
        overrides=_FIXED,
        baseline="adamw",
    )
    house.plan({1: [2]})
    assert house.run(stages) == dict(done=6, diverged=0, failed=2, waiting=0)
    confirmed = house.table()[4:]
    assert [(line["stage"], line["arm"], line["seed"]) for line in confirmed] == [
        ("confirm", arm, str(seed)) for arm in ("adamw", "lion") for seed in range(2)
    ]
    overrides = house.read(confirmed[0]["name"], "point.json")["overrides"]
    assert overrides["schedule.learning_rate"] == 2.0**-10  # the smallest loss
    folder = SweepFolder(house.out)
    report = estimate(stages, folder, points_so_far(stages, folder), workers=1)
    assert report["points"] == 8 and report["tokens_left"] == 2 * 2 * TOKENS  # the failed ones
    assert report["seconds_left"] > 0
    sweep = (house.out / "sweep.json").read_text()
    assert '"baseline": "adamw"' in sweep and '"tune",\n    "confirm"' in sweep


def test_a_failed_point_is_tried_again_by_the_next_start_and_what_all_ran_on_is_recorded(house):
    house.plan({0: [2], 1: [76]}, device="a")
    (house.folder / "sweep.py").write_text("# as it was run\n")
    stages = house.stages(seeds(3))
    end = house.end(stages)
    assert end.counts == dict(done=1, diverged=1, failed=1, waiting=0)
    assert (end.programs_compiled, end.programs_loaded, end.exit_status) == (3, 0, 1)
    house.plan(device="b")
    end = house.end(stages)
    assert end.counts == dict(done=2, diverged=1, failed=0, waiting=0)
    assert [len(house.starts(name)) for name in _names(stages)] == [2, 1, 1]
    assert (end.programs_compiled, end.programs_loaded, end.exit_status) == (3, 1, 0)
    status = house.read(_names(stages)[0], "status.json")
    assert (status["programs_compiled"], status["programs_loaded"]) == (1, 1)
    environment = json.loads((house.out / "sweep.json").read_text())["environment"]
    assert environment["device"] == "a; b"
    assert environment["gpt2_jax"].startswith(gpt2_jax.__version__)
    assert (house.out / "sweep.py").read_text() == "# as it was run\n"


def test_two_starts_cannot_run_one_sweep(house):
    house.out.mkdir()
    with FileLock(house.out), pytest.raises(UserError, match=r"--out .* is in use by process"):
        house.run(house.stages(seeds(2)))
    assert not (house.out / "sweep.json").exists()


def test_a_point_waits_for_a_process_of_a_killed_start_that_still_saves_it(house):
    stages = house.stages(seeds(2))
    first = _names(stages)[0]
    house.run(house.stages(seeds(1, first=1)))
    workdir = house.out / "points" / first / "run"
    workdir.mkdir(parents=True)
    lock = FileLock(workdir)
    lock.acquire()
    waits, deadline = f"waiting for {first}: ", time.monotonic() + 60

    def release():
        while not any(line.startswith(waits) for line in house.log):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        lock.release()

    thread = threading.Thread(target=release)
    thread.start()
    assert house.run(stages)["done"] == 2
    thread.join()
    assert any(line.startswith(waits) for line in house.log)


def test_points_that_other_commands_have_trained_are_collected(house):
    stages = house.stages(seeds(2))
    strange = house.out / "points" / "of-another-sweep" / "run"
    for name in _names(stages):
        (house.out / "points" / name / "run").mkdir(parents=True)  # as --print_commands names it
    strange.mkdir(parents=True)
    with pytest.raises(UserError, match="is not the folder of a sweep: it has points"):
        house.run(stages)
    strange.rmdir()
    strange.parent.rmdir()
    assert house.run(stages)["done"] == 2


def test_workers_have_cores_of_their_own(house):
    cores = available_cores()
    slots = make_slots(2, None)
    if len(cores) > 1:
        assert {*slots[0].cores}.isdisjoint(slots[1].cores)
        assert sorted([*slots[0].cores, *slots[1].cores]) == cores
    house.plan(seconds=0.02)
    stages = house.stages(seeds(4))
    house.run(stages, slots)
    starts = [house.starts(name)[0] for name in _names(stages)]
    if hasattr(os, "sched_getaffinity"):
        assert {tuple(own) for _, own, _ in starts} == {slot.cores for slot in slots}
    ended = house.out / "points" / _names(stages)[0] / "run" / "ended"
    assert starts[1][0] < float(ended.read_text())  # they ran at the same time
    assert make_slots(None, None) == [Slot()]  # one point has all cores


def test_points_have_gpus_of_their_own(house, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,GPU-a,GPU-b,7")
    slots = make_slots(None, 2)
    assert [slot.devices for slot in slots] == ["2,3", "GPU-a,GPU-b"]
    stages = house.stages(seeds(4))
    house.run(stages, slots)
    assert {house.starts(name)[0][2] for name in _names(stages)} == {"2,3", "GPU-a,GPU-b"}
    devices = house.folder / "dev"
    devices.mkdir()
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (devices / name).touch()
    assert visible_gpus({}, devices) == ["2", "10"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, devices) == []


def test_ctrl_c_stops_the_points_that_run_and_the_next_start_goes_on(house):
    house.plan(seconds=0.2)
    stages = house.stages(seeds(4))
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Preempted, match=r"run the same command again"):
        house.run(stages, make_slots(2, None))
    timer.join()
    states = [
        house.read(name, "status.json") for name in _names(stages) if _has_status(house, name)
    ]
    # One that had not begun to train is ended by the signal itself.
    assert any(each["exit_status"] in (75, 143) for each in states)
    assert signal.getsignal(signal.SIGINT) is handler
    house.plan()
    assert house.run(stages)["done"] == 4


def _has_status(house, name):
    return (house.out / "points" / name / "status.json").exists()


_DRIVER = """
import sys
from pathlib import Path
from gpt2_jax.sweeps.file import load_sweep
from gpt2_jax.sweeps.engines.local import LocalEngine
from gpt2_jax.sweeps.runner import run_sweep
from gpt2_jax.sweeps.engines.slots import make_slots
from gpt2_jax.sweeps.stages import Stages

train, out = sys.argv[1:-1], sys.argv[-1]

def make(folder, base, log):
    return LocalEngine(folder, base, make_slots(2, None), train=train, log=log)

run_sweep(Stages(load_sweep("sweep.py")), "sweep.py", out, make)
"""
_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis, logspace2, product, seeds

def get_sweep():
    points = product(axis("schedule.learning_rate", logspace2(-10, -8)), seeds(4))
    return Sweep("tiny.py", points, overrides={"schedule.min_learning_rate": 0.0})
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_was_not(house):
    """Kills the process that runs the sweep with SIGKILL at five random moments."""
    house.plan({2: [76] * 50}, seconds=0.01)
    (house.folder / "sweep.py").write_text(_SWEEP)
    (house.folder / "driver.py").write_text(_DRIVER)
    command = [sys.executable, "driver.py", *house.train]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start(out):
        return subprocess.Popen([*command, out], stderr=subprocess.PIPE, text=True, env=environment)

    assert start("whole").communicate(timeout=60) and (house.folder / "whole").exists()
    moments = random.Random(15)
    recorded: dict[str, int] = {}
    for _ in range(5):
        with start("out") as process:
            deadline = time.monotonic() + 20
            while process.pid != _owner(house) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.02, 0.3))
            process.kill()
        for path in house.out.glob("points/*/status.json"):
            if json.loads(path.read_text())["state"] in ("done", "diverged"):
                recorded.setdefault(path.parts[-2], len(house.starts(path.parts[-2])))
    process = start("out")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    expected = (house.folder / "whole" / "results.csv").read_text()
    assert (house.out / "results.csv").read_text() == expected
    assert expected.count(",done,") == 9 and expected.count(",diverged,") == 3
    assert recorded and {name: len(house.starts(name)) for name in recorded} == recorded


def _owner(house):
    """Returns the process that runs the sweep in the folder, as its lock says."""
    try:
        return json.loads((house.out / "lock").read_bytes())["pid"]
    except (OSError, ValueError):
        return None
