"""The points of a stage are one array job, which needs no process that waits for it."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import Preempted, UserError
from gpt2_jax.sweeps import seeds
from gpt2_jax.sweeps.engines.array_task import QUEUED_AGAIN
from gpt2_jax.sweeps.engines.array_task import main as main_of_task
from gpt2_jax.sweeps.engines.choose import batch_script
from gpt2_jax.sweeps.engines.slurm import SlurmEngine, sbatch_options
from gpt2_jax.sweeps.folder import DONE, Status, SweepFolder
from gpt2_jax.sweeps.runner import run_sweep
from tests.sweeps.fake_slurm import install
from tests.sweeps.sweeping import ATTEMPTS, ROOT

# A task with the command that pretends to train.
_TASK = """
import sys
from gpt2_jax.sweeps.engines.array_task import main
sys.exit(main(sys.argv[1:], {train!r}))
"""


@pytest.fixture
def slurm(house, monkeypatch):
    """Returns the folder of commands that pretend to be Slurm's."""
    folder = house.folder / "slurm"
    install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    (house.folder / "task.py").write_text(_TASK.format(train=house.train))
    return folder


def _run(house, stages, options=(), at_once=None, settle_s=0.3):
    engines = []

    def make(folder, base, log):
        engine = SlurmEngine(
            folder,
            str(house.out),
            options,
            batch_script(),
            at_once=at_once,
            log=log,
            command=(sys.executable, str(house.folder / "task.py")),
            poll_s=0.1,
            settle_s=settle_s,
        )
        engines.append(engine)
        return engine

    house.engines = engines
    return run_sweep(stages, "sweep.py", house.out, make, log=house.log.append)


def _submitted(slurm):
    return [json.loads(line) for line in (slurm / "submitted").read_text().splitlines()]


def test_a_stage_is_one_array_whose_points_end_as_on_this_machine(house, slurm):
    house.plan({1: [75, 0]})
    stages = house.stages(seeds(2))
    end = _run(house, stages, ["--time=10"], at_once=3)
    assert end.counts == dict(done=2, diverged=0, failed=0, waiting=0)
    (words,) = _submitted(slurm)
    assert "--array=0-1%3" in words and "--time=10" in words
    results = (house.out / "results.csv").read_bytes()
    house.out.rename(house.folder / "by_slurm")
    assert house.end(stages) == end  # with the programs that were compiled
    assert (house.out / "results.csv").read_bytes() == results


def _write_list(house, name, points):
    """Writes the list of an array, as the engine does, and the points."""
    for point in points:
        SweepFolder(house.out).write_point(point, "tiny.py")
    (house.folder / name).write_text(json.dumps({"points": [point.name for point in points]}))


@pytest.fixture
def task(house, monkeypatch):
    """Returns a function that runs a task of an array once and returns its exit status."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("GPT2_JAX_RUN_INFO", str(house.folder / "info"))

    def run(listed, index, process=0):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        monkeypatch.setenv("SLURM_PROCID", str(process))
        return main_of_task(["out", listed], house.train)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
def test_what_an_exit_status_decides_about_a_point_is_the_same_as_on_this_machine(house, task):
    house.plan({seed: statuses for seed, (statuses, _) in enumerate(ATTEMPTS)})
    folder, points = SweepFolder(house.out), house.stages(seeds(len(ATTEMPTS))).known["main"]
    _write_list(house, "list", points)
    for index, (point, (statuses, state)) in enumerate(zip(points, ATTEMPTS, strict=True)):
        ends = [task("list", index)]
        while ends[-1] in QUEUED_AGAIN:
            ends.append(task("list", index))
        status = folder.status(point.name)
        assert (status.state, status.attempts) == (state, len(statuses)), statuses
        last = statuses[-1]
        assert status.exit_status == (128 - last if last < 0 else last)
        assert status.message == ("" if state == "done" else f"the reason for {last}")
        if last in (0, 76, 2, 78):  # the task ends with a status that is no reason to queue it
            assert ends[-1] == last
        assert [end == 75 for end in ends] == [each == 75 for each in statuses]
    with pytest.raises(UserError, match=f"SLURM_ARRAY_TASK_ID={len(points)} is none of the"):
        task("list", len(points))


def test_a_point_that_is_submitted_again_has_its_retry_again(house, task):
    house.plan({0: [77, 77, 77, 0]})
    points = house.stages(seeds(1)).known["main"]
    for listed in ("first", "second"):
        _write_list(house, listed, points)
    assert [task(listed, 0) for listed in ("first", "first")] == [77, 1]
    assert SweepFolder(house.out).status(points[0].name).state == "failed"
    assert [task(listed, 0) for listed in ("second", "second")] == [77, 0]


def test_the_script_queues_a_task_again_after_the_statuses_that_the_task_knows():
    (line,) = re.findall(r"^([0-9 |]+)\)$", batch_script().read_text(), re.MULTILINE)
    assert tuple(int(each) for each in line.split("|")) == QUEUED_AGAIN


def test_other_processes_of_a_task_leave_the_decision_to_the_first(house, task):
    house.plan({0: [78], 1: [-14], 2: [76], 3: [75]})
    points = house.stages(seeds(4)).known["main"]
    _write_list(house, "list", points)
    # They do not know what came before. Where the first one ends with 1, that is what counts.
    assert [task("list", index, process=1) for index in range(4)] == [77, 77, 76, 75]
    assert not list(house.out.glob("points/*/status.json"))


def test_no_process_of_a_task_that_has_ended_starts_anything(house, task):
    house.plan({1: [76]})
    points = house.stages(seeds(2)).known["main"]
    _write_list(house, "list", points)
    for index, end in enumerate((0, 76)):
        assert task("list", index) == end
        # Slurm queues it again, as after the node was lost before the end had reached Slurm.
        assert [task("list", index, process) for process in range(3)] == [end] * 3
        assert len(house.starts(points[index].name)) == 1
        assert SweepFolder(house.out).status(points[index].name).attempts == 1


def test_what_is_in_the_queue_is_not_submitted_again(house, slurm):
    (slurm / "held").touch()
    stages = house.stages(seeds(1))

    def stop():
        while not (slurm / "submitted").exists():
            time.sleep(0.02)
        house.engines[0].stop = True

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Preempted):
        _run(house, stages)
    thread.join()
    (slurm / "held").unlink()
    assert _run(house, house.stages(seeds(2))).counts["done"] == 2
    assert ["--array=0-0" in words for words in _submitted(slurm)] == [True, True]
    assert all(len(house.starts(line["name"])) == 1 for line in house.table())
    assert any("1 points are in Slurm's queue" in line for line in house.log)


def test_a_point_whose_task_is_cancelled_is_left_waiting(house, slurm):
    (slurm / "held").touch()

    def cancel():
        while not list((slurm / "queue").iterdir()):
            time.sleep(0.02)
        (slurm / "silent").touch()  # meanwhile, Slurm does not answer
        time.sleep(0.3)
        for task in (slurm / "queue").iterdir():
            task.unlink()
        (slurm / "silent").unlink()

    thread = threading.Thread(target=cancel)
    thread.start()
    end = _run(house, house.stages(seeds(2)))
    thread.join()
    assert end.counts["waiting"] == 2 and end.exit_status == 1


def test_a_task_that_one_answer_lacks_is_waited_for_and_those_of_other_points_are_not(house):
    (point,) = house.stages(seeds(1)).known["main"]
    folder, clock = SweepFolder(house.out), itertools.count(step=6.0)
    engine = SlurmEngine(
        folder,
        str(house.out),
        (),
        batch_script(),
        at_once=None,
        log=house.log.append,
        clock=lambda: float(next(clock)),
        poll_s=0.0,
        settle_s=15.0,
    )
    task, answers, seen = SimpleNamespace(running=True), itertools.count(), []

    def queue(must=False):
        answer = next(answers)
        if answer == 9:
            folder.point(point.name).mkdir(parents=True)
            folder.write_status(point.name, Status(0, DONE, "", 1.0, 1))
        seen.append(list(engine.running))
        return {"of another choice": task} | ({} if answer in (2, 5) else {point.name: task})

    engine._queue = queue
    ended = []
    engine.run([point], lambda point, status: ended.append(status.state), lambda: None)
    assert ended == [DONE] and [point.name] in seen
    assert not any("of another choice" in names for names in seen)


@pytest.mark.slow
def test_tasks_that_every_second_answer_lacks_are_not_given_up(house, slurm):
    (slurm / "held").touch()
    forgets = slurm / "forgets"
    forgets.touch()

    def release():
        until = time.monotonic() + 20  # 12 answers take much longer than `settle_s`
        while forgets.stat().st_size < 12 and time.monotonic() < until:
            time.sleep(0.02)
        (slurm / "held").unlink()

    thread = threading.Thread(target=release)
    thread.start()
    end = _run(house, house.stages(seeds(2)))
    thread.join()
    assert end.counts["done"] == 2 and len(_submitted(slurm)) == 1


def test_a_refusal_of_slurm_is_one_line_and_leaves_no_array(house, slurm):
    (slurm / "refuses").touch()
    with pytest.raises(UserError, match="Slurm's sbatch failed: sbatch: error: invalid partition"):
        _run(house, house.stages(seeds(2)))
    assert not list((house.out / "slurm").iterdir())


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--sbatch=--time=10",), "--sbatch needs --engine slurm"),
        (("--dry_run", "--sbatch=--time=10"), "--sbatch needs --engine slurm"),
        (("--engine=slurm", "--sbatch=--array=0-3"), "--sbatch cannot have --array"),
        (("--engine=slurm", "--sbatch=-Jname"), "--sbatch cannot have -J"),
        (("--engine=slurm", "--sbatch=gpu"), "must be options of sbatch"),
        (("--engine=slurm", "--sbatch=--comment='"), "No closing quotation"),
        (("--engine=slurm", "--workers=0"), "--workers must be between 1 and 1024, not 0"),
        (("--engine=slurm",), "needs Slurm's sbatch, which is not installed here"),
    ],
)
def test_wrong_options_are_refused(house, capsys, monkeypatch, flags, problem):
    monkeypatch.setenv("PATH", str(house.folder))
    sweep = "from gpt2_jax.sweeps import *\ndef get_sweep(): return Sweep('tiny.py', seeds(2))"
    (house.folder / "sweep.py").write_text(sweep)
    assert main(["sweep", "--sweep", "sweep.py", "--out", "out", *flags]) == 2
    assert problem in capsys.readouterr().err
    assert not house.out.exists()


def test_gpus_of_a_point_are_those_of_its_node():
    assert sbatch_options("--time=10 -p gpu", 2) == ["--gpus-per-node=2", "--time=10", "-p", "gpu"]
