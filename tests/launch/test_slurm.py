"""Tests the batch script in a real Slurm: a controller and a node daemon on this machine.

The Debian package slurm-wlm is all it needs; `make test-slurm` installs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from tests.runs import CONFIG, NO_SAMPLE, SETTINGS, losses, train

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "launch" / "slurm" / "train.sbatch"
# `cred_expire` is also how long a job waits that was queued again.
_SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
MpiDefault=none
KillWait=20
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Runs a cluster of one node; `run` runs its client commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.environment |= SETTINGS | {"JAX_NUM_CPU_DEVICES": "1"}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *command: str, tasks: int = 2) -> str:
        """Submits `gpt2-jax` with these words; returns the number of the job."""
        words = [sys.executable, "-m", "gpt2_jax", *command]
        return self.run(
            *("sbatch", "--parsable", f"--ntasks={tasks}", "--output=log", "--time=10"),
            *(str(_SCRIPT), *words),
        ).strip()

    def state(self, job: str) -> str:
        return re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))[1]

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, what, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    settings = {"controller_port": _free_port(), "node_port": _free_port(), "folder": folder}
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(_SLURM_CONF.format(host=host, **settings))
    cluster = Slurm(folder)
    with contextlib.ExitStack() as stack:
        for daemon in ("slurmctld", "slurmd"):
            output = stack.enter_context((folder / f"{daemon}.out").open("wb"))
            path = shutil.which(daemon, path=f"{os.environ['PATH']}:/usr/sbin")
            process = subprocess.Popen([path, "-D"], env=cluster.environment, stderr=output)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.terminate)
        deadline = time.monotonic() + 30
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "--noheader"], env=cluster.environment, capture_output=True, text=True
            ).stdout
        ):
            logs = [(folder / f"{name}.log") for name in ("slurmctld", "slurmd")]
            texts = [path.read_text()[-2000:] for path in logs if path.exists()]
            assert time.monotonic() < deadline, texts
            time.sleep(0.5)
        stack.callback(cluster.run, "scancel", "--full", "--partition=all")
        yield cluster


@pytest.fixture(scope="module")
def config(slurm):
    prepare([Document("data", "one fish two fish " * 80)], "byte", slurm.folder / "data")
    path = slurm.folder / "config.py"
    path.write_text(CONFIG.format(data=str(slurm.folder / "data")))
    return path


def test_a_job_of_two_tasks_is_told_to_stop_is_queued_again_and_ends_as_if_it_were_not(
    slurm, config
):
    workdir = slurm.folder / "run"
    flags = ("--config", str(config), "--workdir", str(workdir), "--config.mesh.tensor=2")
    job = slurm.submit("train", *flags, NO_SAMPLE)
    metrics = workdir / "metrics.jsonl"
    slurm.wait(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= 3)
    slurm.run("scancel", "--signal=TERM", job)
    slurm.wait(lambda: f"requeueing job {job}" in slurm.log())
    stopped = re.findall(r"stopped and saved at step (\d+) of 20", slurm.log())
    assert len(stopped) == 2 and len(set(stopped)) == 1, slurm.log()
    assert "ended with 75" in slurm.log()
    slurm.wait(lambda: slurm.state(job) == "COMPLETED", seconds=120)
    assert f"from step {stopped[0]} to 20" in slurm.log()
    assert slurm.log().count("process 1 of 2: 1 of 2 devices") == 2

    train(slurm.folder, slurm.folder / "alone", NO_SAMPLE, devices=1)
    ours, expected = losses(workdir), losses(slurm.folder / "alone")
    error = np.abs(np.array(ours) / expected - 1).max()
    print(f"Slurm, 2 tasks, stopped at step {stopped[0]}: {error:.1e} relative")
    assert len(ours) == 20 and error < 1e-4


def test_a_cancelled_job_is_not_queued_again(slurm):
    stops = "trap 'exit 75' TERM; touch started; while true; do sleep 0.1; done"
    job = slurm.run(
        *("sbatch", "--parsable", "--ntasks=2", "--output=log", "--time=10", str(_SCRIPT)),
        *("bash", "-c", stops),
    ).strip()
    slurm.wait(lambda: (slurm.folder / "started").exists())
    slurm.run("scancel", job)
    slurm.wait(lambda: slurm.state(job) not in ("PENDING", "RUNNING", "COMPLETING"))
    shown = slurm.run("scontrol", "show", "job", job)
    assert "JobState=CANCELLED" in shown and "Restarts=0" in shown


def test_a_mistake_ends_the_job_for_good(slurm, config):
    job = slurm.submit("train", "--config", str(config), "--workdir", "x", "--config.mesh.data=3")
    slurm.wait(lambda: slurm.state(job) not in ("PENDING", "RUNNING", "COMPLETING"))
    shown = slurm.run("scontrol", "show", "job", job)
    assert "JobState=FAILED" in shown and "ExitCode=2:0" in shown and "Restarts=0" in shown


_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis, product, seeds

def get_sweep():
    points = product(axis("schedule.learning_rate", [1e-3, 3e-3]), seeds(2))
    return Sweep("config.py", points, overrides={"eval.sample_tokens": 0})
"""


def _sweep(slurm, *flags):
    command = [sys.executable, "-m", "gpt2_jax", "sweep", "--sweep", "sweep.py", *flags]
    return subprocess.Popen(
        command, env=slurm.environment, cwd=slurm.folder, stderr=subprocess.PIPE, text=True
    )


def log_of(out, name):
    return (out / "points" / name / "log.txt").read_text()


@pytest.mark.timeout(900)
def test_a_sweep_is_an_array_that_outlives_its_sweep_and_has_the_results_of_one_without_slurm(
    slurm, config
):
    (slurm.folder / "sweep.py").write_text(_SWEEP)
    flags = ("--out", "by_slurm", "--engine", "slurm", "--workers", "2", "--sbatch=--time=10")
    out = slurm.folder / "by_slurm"
    with _sweep(slurm, *flags) as first:
        slurm.wait(lambda: list(out.glob("points/*/run/metrics.jsonl")), seconds=240)
        stopped = next(path.parts[-3] for path in out.glob("points/*/run/metrics.jsonl"))
        (array,) = (out / "slurm").glob("*.json")
        index = json.loads(array.read_text())["points"].index(stopped)
        job = json.loads(array.read_text())["job"]
        # As something else than Slurm may do: the trainer saves and ends with 75.
        lock = json.loads((out / "points" / stopped / "run" / "lock").read_bytes())
        os.kill(lock["pid"], signal.SIGTERM)
        log = out / "slurm" / f"{array.stem}-{job}_{index}.log"
        slurm.wait(lambda: log.exists() and "requeueing job" in log.read_text())
        first.kill()
    tasks = slurm.run("squeue", "--noheader", "--array", "--format=%T").split()
    assert len(tasks) >= 3 and tasks.count("RUNNING") <= 2, tasks
    with _sweep(slurm, *flags) as second:
        _, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    assert "points are in Slurm's queue since an earlier start" in errors
    assert list((out / "slurm").glob("*.json")) == [array]  # nothing was submitted again
    status = json.loads((out / "points" / stopped / "status.json").read_text())
    assert status["attempts"] == 2 and "stopped and saved" in log_of(out, stopped)
    with _sweep(slurm, "--out", "by_hand") as local:
        _, errors = local.communicate(timeout=240)
    assert local.returncode == 0, errors
    results = (out / "results.csv").read_bytes()
    assert results == (slurm.folder / "by_hand" / "results.csv").read_bytes()
    assert results.count(b",done,") == 4
