"""A run on a disk that fills up: it keeps training, and saves again or ends with status 78."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.runs import NO_SAMPLE, losses, make_lab, start, train

_SIZE = 8 << 20
_STEPS = "--config.train.total_steps=1000000"


@pytest.fixture
def disk(tmp_path):
    """An empty disk of 8 MiB: a tmpfs in a mount namespace, reached through its owner's root."""
    mount = f"mount -t tmpfs -o size={_SIZE} none {tmp_path} && echo ready && exec sleep 1000"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if owner.stdout.readline() != "ready\n":
            pytest.skip(f"cannot mount a tmpfs: {owner.stderr.read()}")
        yield Path(f"/proc/{owner.pid}/root{tmp_path}")
    finally:
        owner.kill()
        owner.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory, "full")


class Output:
    """Collects the lines that a process prints on standard error while it runs."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, text, times=1):
        deadline = time.monotonic() + 200
        while sum(text in line for line in self.lines) < times:
            assert time.monotonic() < deadline and self.process.poll() is None, self.lines[-20:]
            time.sleep(0.02)

    def end(self):
        status = self.process.wait(200)
        self._thread.join(20)
        return status


def fill(disk):
    """Takes all the space that is left."""
    with open(disk / "filler", "ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def steps_saved(workdir):
    folders = (workdir / "checkpoints").glob("*")
    return sorted(int(path.name) for path in folders if path.name.isdigit())


def wait_for_save(workdir, after, process):
    deadline = time.monotonic() + 200
    while (saved := max(steps_saved(workdir), default=0)) <= after:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return saved


@pytest.mark.slow
def test_training_survives_a_full_disk_and_saves_again_once_there_is_space(lab, disk):
    workdir = disk / "run"
    flags = [_STEPS, NO_SAMPLE, "--config.checkpoint.every=50", "--config.checkpoint.keep=1"]
    flags += ["--config.checkpoint.max_failures=1000", "--config.log.tensorboard=True"]
    process = start(lab, workdir, *flags, devices=1)
    output = Output(process)
    wait_for_save(workdir, 0, process)
    fill(disk)
    output.wait_for("no space left on the disk (failure", times=3)
    before = steps_saved(workdir)[-1]
    (disk / "filler").unlink()
    wait_for_save(workdir, before, process)
    process.send_signal(signal.SIGTERM)
    assert output.end() == 75, output.lines[-20:]
    last = steps_saved(workdir)[-1]
    assert len(losses(workdir)) == last  # each step once, including those while the disk was full
    assert any("metrics.jsonl: No space left on device; new" in line for line in output.lines)
    assert not [line for line in output.lines if "Traceback" in line or "exception" in line]
    # The state saved afterwards is the one of a run that always had space.
    train(lab, lab / "roomy", NO_SAMPLE, _STEPS, "--stop_at_step", str(last), devices=1)
    assert losses(lab / "roomy") == losses(workdir)


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_with_78_and_an_intact_checkpoint(lab, disk):
    workdir = disk / "run"
    flags = [_STEPS, NO_SAMPLE, "--config.checkpoint.every=50", "--config.checkpoint.keep=1"]
    flags += ["--config.checkpoint.max_failures=2"]
    process = start(lab, workdir, *flags, devices=1)
    output = Output(process)
    wait_for_save(workdir, 0, process)
    while process.poll() is None:  # repeatedly, because removing an old step frees space
        fill(disk)
        time.sleep(0.05)
    assert output.end() == 78, output.lines[-20:]
    last = output.lines[-1]
    assert last.startswith("error: cannot save a checkpoint in") and "2 in a row" in last, last
    saved = steps_saved(workdir)
    assert len(saved) == 1
    (disk / "filler").unlink()
    stop = ["--stop_at_step", str(saved[0] + 20)]
    errors = train(lab, workdir, *flags, *stop, devices=1)
    assert f"from step {saved[0]} to" in errors
    assert steps_saved(workdir) == [saved[0] + 20]
    assert os.listdir(workdir / "checkpoints") == [str(saved[0] + 20)]
