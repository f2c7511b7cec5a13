"""All processes of a slice train the same points, one at a time, and process 0 decides."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import PeersLost, Preempted
from gpt2_jax.sweeps import seeds
from gpt2_jax.sweeps.engines.slice_files import OVER, READY, START, Answer, Order, SliceFiles
from gpt2_jax.sweeps.engines.slice_follower import Follower
from gpt2_jax.sweeps.engines.slice_leader import SliceEngine
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.runner import run_sweep
from tests.runs import SETTINGS, fill_lab
from tests.sweeps.sweeping import ROOT

# The command of process 1: it notes its seed, and ends as `plan` beside it says.
_OTHER = """
import json, pathlib, signal, sys, time
seed = next(word.partition("=")[2] for word in sys.argv if "train.seed" in word)
here = pathlib.Path(__file__).parent
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
with open(here / "followed", "a") as file:
    print(seed, file=file)
plan = json.loads((here / "other.json").read_text())
for _ in range(int(plan.get("seconds", 0) * 100)):
    time.sleep(0.01)
    if stopped:
        sys.exit(75)
if seed in plan:
    print("error: the reason of the other", flush=True)
sys.exit(plan.get(seed, 0))
"""
_FOLLOWER = """
import pathlib, sys
from gpt2_jax.sweeps.engines.slice_follower import Follower
train = (sys.executable, "-I", "-S", "other.py")
print("begins", flush=True)
sys.exit(Follower(pathlib.Path("out"), 1, train=train, log=print, patience_s=30).run())
"""


@contextlib.contextmanager
def _follower(house, **plan):
    """Starts process 1, whose commands end with the statuses of `plan` by seed."""
    (house.folder / "other.py").write_text(_OTHER)
    (house.folder / "other.json").write_text(json.dumps(plan))
    environment = os.environ | {"PYTHONPATH": ROOT}
    command = [sys.executable, "-c", _FOLLOWER]
    with subprocess.Popen(
        command, cwd=house.folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _lead(house, stages, processes=2, patience_s=30.0):
    def make(folder, base, log):
        return SliceEngine(
            folder, base, processes, train=house.train, log=log, patience_s=patience_s
        )

    return run_sweep(stages, "sweep.py", house.out, make, log=house.log.append)


@pytest.mark.slow
def test_both_processes_train_each_point_and_the_reason_of_either_is_that_of_the_point(house):
    # Commands that only pretend to train do not wait for each other: they must take some time.
    house.plan({0: [77, 77], 1: [76]}, seconds=0.2)
    with _follower(house, **{"0": 2, "1": 76}) as follower:
        end = _lead(house, house.stages(seeds(4)))
        assert follower.wait(timeout=20) == 1
    assert (house.folder / "followed").read_text() == "0\n1\n2\n3\n"
    assert [len(house.starts(line["name"])) for line in house.table()] == [1, 1, 1, 1]
    assert end.counts == dict(done=2, diverged=1, failed=1, waiting=0)
    failed, diverged, *_ = (house.read(line["name"], "status.json") for line in house.table())
    assert failed["exit_status"] == 2 and diverged["exit_status"] == 76
    assert failed["message"] == "process 1: the reason of the other"
    assert failed["attempts"] == 1  # a mistake is not tried again


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them_and_the_next_start_goes_on(house):
    house.plan(seconds=0.05)
    stages = house.stages(seeds(3))
    with _follower(house, seconds=0.5) as follower:

        def stop():
            while not (house.folder / "followed").exists():
                time.sleep(0.02)
            time.sleep(0.2)
            follower.send_signal(signal.SIGTERM)

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(Preempted):
            _lead(house, stages)
        thread.join()
        assert follower.wait(timeout=20) == 75
    house.plan()
    with _follower(house) as follower:  # which finds the files of the sweep before
        assert _lead(house, stages).counts["done"] == 3
        assert follower.wait(timeout=20) == 0


def test_processes_that_do_not_come_are_named(house):
    with pytest.raises(PeersLost, match=r"process 1, 2 of 3 .* did not answer in 0.3 s"):
        _lead(house, house.stages(seeds(1)), processes=3, patience_s=0.3)
    assert not list(house.out.glob("points/*/status.json"))
    follower = Follower(house.folder, 1, log=house.log.append, patience_s=0.3)
    with pytest.raises(PeersLost, match=r"has not heard of process 0 for 0.3 s"):
        follower.run()


_STALE = Order("killed", 3, START, ("--config.train.seed=5",), beat=7)


@pytest.mark.slow
def test_what_a_killed_leader_has_left_is_not_obeyed(house):
    house.run(house.stages(seeds(1)))  # makes the folder
    (house.folder / "other.py").write_text(_OTHER)
    (house.folder / "other.json").write_text("{}")
    files = SliceFiles(house.out)
    files.write_order(_STALE)
    train = (sys.executable, "-I", "-S", str(house.folder / "other.py"))
    follower = Follower(house.out, 1, train=train, log=house.log.append, patience_s=1.0)
    with pytest.raises(PeersLost, match="has not heard of process 0 for 1 s"):
        follower.run()
    assert not (house.folder / "followed").exists() and files.answer(1) == Answer()
    house.plan(seconds=0.02)
    with _follower(house) as process:  # a new leader is
        assert process.stdout.readline() == "begins\n"
        assert _lead(house, house.stages(seeds(3))).counts["done"] == 3
        assert process.wait(timeout=20) == 0
    assert (house.folder / "followed").read_text() == "1\n2\n"


def test_a_leader_that_began_before_its_follower_is_obeyed_once_its_beat_has_moved(house):
    files = SliceFiles(house.out)
    files.write_order(Order("alive", 0, READY, beat=1))
    answers = []

    def lead():
        time.sleep(0.5)
        answers.append(files.answer(1))
        files.write_order(Order("alive", 0, READY, beat=2))
        while not files.answer(1).ready:
            time.sleep(0.02)
        files.write_order(Order("alive", 0, OVER, exit_status=3, beat=3))

    thread = threading.Thread(target=lead)
    thread.start()
    assert Follower(house.out, 1, log=house.log.append, patience_s=20.0).run() == 3
    thread.join()
    assert answers == [Answer()]


def test_a_leader_beats_every_second_while_it_waits_for_followers(house):
    times = itertools.count(step=0.25)
    orders = []

    def clock():
        orders.append(SliceFiles(house.out).order())
        return next(times)

    with pytest.raises(PeersLost):
        SliceEngine(
            SweepFolder(house.out), "tiny.py", 2, log=house.log.append, clock=clock, patience_s=10.0
        )
    beats = {order.beat for order in orders if order is not None}
    assert 5 <= len(beats) <= 15


def test_a_slice_of_one_process_needs_no_other(house):
    assert _lead(house, house.stages(seeds(2)), processes=1).counts["done"] == 2


@pytest.mark.parametrize(
    ("variables", "flags", "problem"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, (), "started this command in 2 processes"),
        ({}, ("--engine", "slice", "--workers", "2"), "--workers and --engine slice cannot"),
        ({"JAX_NUM_PROCESSES": "two"}, ("--engine", "slice"), "must be an integer, not 'two'"),
        ({"JAX_NUM_PROCESSES": "2"}, ("--engine", "slice"), "set JAX_PROCESS_ID"),
        ({}, ("--engine", "slide"), "invalid choice: 'slide'"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(house, capsys, monkeypatch, variables, flags, problem):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sweep = "from gpt2_jax.sweeps import *\ndef get_sweep(): return Sweep('tiny.py', seeds(2))"
    (house.folder / "sweep.py").write_text(sweep)
    assert main(["sweep", "--sweep", "sweep.py", "--out", "out", *flags]) == 2
    assert problem in capsys.readouterr().err
    assert not house.out.exists()


_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis, product, seeds

def get_sweep():
    points = product(axis("schedule.learning_rate", [1e-3, 3e-3]), seeds(1))
    return Sweep("config.py", points, overrides={"eval.sample_tokens": 0})
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_and_one_with_as_many_devices_have_identical_results(tmp_path):
    fill_lab(tmp_path)
    (tmp_path / "sweep.py").write_text(_SWEEP)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = cache | os.environ | SETTINGS
    sweep = [sys.executable, "-m", "gpt2_jax", "sweep", "--sweep", "sweep.py", "--out"]
    local = [sys.executable, f"{ROOT}/launch/local.py", "--processes", "2"]
    local += ["--devices_per_process", "1", "--"]
    for command, devices in (
        ([*local, *sweep, "slice", "--engine", "slice"], "1"),
        ([*sweep, "one"], "2"),
    ):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | {"JAX_NUM_CPU_DEVICES": devices},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    results = (tmp_path / "slice" / "results.csv").read_text()
    assert results == (tmp_path / "one" / "results.csv").read_text()
    assert results.count(",done,") == 2
    for out in ("slice", "one"):  # the second point of a shape compiles nothing anew
        names = [line.partition(",")[0] for line in results.splitlines()[1:]]
        paths = [tmp_path / out / "points" / name / "run_info.json" for name in names]
        first, second = (json.loads(path.read_bytes()) for path in paths)
        assert "jit(train_step)" in first["compiled"] + first["loaded"]
        assert second["compiled"] == [] and "jit(train_step)" in second["loaded"]
    device = json.loads((tmp_path / "slice" / "sweep.json").read_text())["environment"]["device"]
    assert device == "2 x cpu"
