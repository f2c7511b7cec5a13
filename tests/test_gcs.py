"""A run whose workdir is in a bucket, against a fake server of Google Cloud Storage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from tests.fake_gcs import fake_storage, in_bucket
from tests.runs import CONFIG, NO_SAMPLE, SETTINGS, arrays, identical, losses, start, train

pytestmark = [pytest.mark.gcs, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def bucket():
    """Returns the environment variables with which gs://bucket is the fake one."""
    with fake_storage() as environment:
        yield environment


@pytest.fixture
def lab(tmp_path):
    """A folder with a config and its data."""
    prepare([Document("data", "one fish two fish " * 80)], "byte", tmp_path / "data")
    (tmp_path / "config.py").write_text(CONFIG.format(data=str(tmp_path / "data")))
    return tmp_path


def test_a_second_trainer_in_a_bucket_is_refused_until_the_first_is_killed(lab, bucket):
    flags = ("--config.train.total_steps=100000", NO_SAMPLE)
    settings = {"devices": 1, "env": bucket}
    output: list[str] = []

    def wait_for(beginning):
        deadline = time.monotonic() + 150
        while not any(line.startswith(beginning) for line in output):
            assert time.monotonic() < deadline and first.poll() is None, output[-20:]
            time.sleep(0.1)

    with start(lab, "gs://bucket/run", *flags, **settings) as first:
        # Without credentials gcsfs prints so much that it would fill a pipe that nobody reads.
        threading.Thread(target=lambda: [output.append(line) for line in first.stderr]).start()
        try:
            wait_for("step 2/")
            errors = train(lab, "gs://bucket/run", *flags, **settings, status=2)
            refusal = errors.splitlines()[-1]
            assert f"in use by process {first.pid} on host {socket.gethostname()}, " in refusal
            output.clear()
            wait_for("step ")
        finally:
            first.kill()
    train(lab, "gs://bucket/run", *flags, "--stop_at_step", "3", **settings)
    assert in_bucket(bucket, "print(fs.exists('bucket/run/lock'))") == "False\n"


def test_a_holder_on_another_machine_counts_as_long_as_it_writes(bucket):
    code = """
import dataclasses, time
from pathlib import Path
from gpt2_jax.files.bucket_lock import BucketLock
from gpt2_jax.files.lock_owner import LockOwner
from gpt2_jax.errors import UserError

far, here = (
    BucketLock(Path("bucket/run"), refresh_s=0.5, stale_s=4, poll_s=0.1) for _ in range(2)
)
far._owner = dataclasses.replace(LockOwner.this_process(), host="far", pid_space="elsewhere")
far.acquire()
try:
    here.acquire()
except UserError as error:
    print(error)
far._released.set()  # it falls silent, as one that is killed
far._thread.join()
began = time.monotonic()
here.acquire()
print(time.monotonic() - began)
far._generation = "1"
far.release()  # another's lock is not removed
print(here._read().owner.host)
here.release()
print(here._read())
"""
    refusal, waited, host, left = in_bucket(bucket, code).splitlines()
    assert "bucket/run is in use by process" in refusal and "on host far" in refusal
    assert 1 < float(waited) < 60 and host != "far" and left == "None"


def test_a_run_in_a_bucket_is_stopped_resumed_and_sampled_from(lab, bucket):
    workdir, settings = "gs://bucket/run", {"devices": 1, "env": bucket}
    board = "--config.log.tensorboard=True"
    train(lab, workdir, "--stop_at_step", "10", NO_SAMPLE, board, **settings)
    train(lab, workdir, board, **settings)
    command = ["sample", "--model", workdir, "--prompt", "one", "--max_new_tokens", "5", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "gpt2_jax", *command],
        env=os.environ | bucket,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["samples"], done.stderr

    # A changed object is noticed without a download.
    flip = """
path, *_ = fs.find('bucket/run/checkpoints/20/params/d')
content = bytearray(fs.cat(path))
content[len(content) // 2] ^= 1
fs.pipe(path, bytes(content))
"""
    in_bucket(bucket, flip)
    errors = train(lab, workdir, board, **settings)
    assert "checkpoints/20 is damaged (params/d/" in errors and "has crc32c" in errors
    assert "from step 16 to 20" in errors

    in_bucket(bucket, "fs.get('bucket/run', sys.argv[1], True)", str(lab / "copy"))
    names = {path.name for path in (lab / "copy").iterdir()}
    files = {"config.json", "metrics.jsonl", "loss_by_position.json", "saved_step"}
    assert names == files | {"checkpoints", "samples", "tensorboard"}
    assert len(list((lab / "copy" / "tensorboard").iterdir())) == 3
    steps = {path.name for path in (lab / "copy" / "checkpoints").iterdir()}
    assert {"16", "20", "20.damaged"} <= steps
    train(lab, lab / "local", NO_SAMPLE, devices=1)
    assert losses(lab / "copy") == losses(lab / "local")
    # A copy on a disk is the same checkpoint.
    assert identical(arrays(lab / "copy"), arrays(lab / "local"))
    assert CheckpointStore(lab / "copy" / "checkpoints").newest_good() == 20


def test_a_first_save_that_was_killed_in_a_bucket_is_not_a_checkpoint(lab, bucket):
    settings = {"devices": 1, "env": bucket}
    in_bucket(bucket, "fs.pipe('bucket/run/checkpoints/8/params/half', b'made')")
    errors = train(lab, "gs://bucket/run", "--stop_at_step", "9", NO_SAMPLE, **settings)
    assert "from step 0 to 9" in errors and "damaged" not in errors
    left = in_bucket(bucket, "print(fs.exists('bucket/run/checkpoints/8/params/half'))")
    assert left == "False\n"


def test_training_from_a_bucket_equals_training_from_a_disk_to_the_bit(lab, bucket):
    in_bucket(bucket, "fs.put(sys.argv[1], 'bucket/shards', True)", str(lab / "data"))
    settings = {"devices": 1, "env": bucket}
    from_bucket = "--config.data.path=gs://bucket/shards"
    train(lab, lab / "local", NO_SAMPLE, devices=1)
    train(lab, lab / "bucket", from_bucket, "--check_sha256", NO_SAMPLE, **settings)
    # The same shards in another place continue a run.
    train(lab, lab / "moved", "--stop_at_step", "10", NO_SAMPLE, devices=1)
    train(lab, lab / "moved", from_bucket, NO_SAMPLE, **settings)
    for workdir in (lab / "bucket", lab / "moved"):
        assert losses(workdir) == losses(lab / "local")
        assert identical(arrays(workdir), arrays(lab / "local"))


def test_a_bucket_that_cannot_be_reached_is_one_line(lab, bucket):
    nowhere = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    errors = train(
        lab, lab / "run", "--config.data.path=gs://bucket/data", status=78, devices=1, env=nowhere
    )
    assert errors.startswith("error: cannot read gs://bucket/data") and errors.count("\n") == 1
    assert "check the network and the credentials" in errors


def test_compiled_programs_are_kept_in_a_bucket(bucket):
    code = """
from gpt2_jax.parallel.compilation_cache import ProgramStore, programs_folder
folder = programs_folder()
ProgramStore(folder).put("p", b"entry")
print(ProgramStore(folder).get("p"), ProgramStore(folder).get("q"), folder)
"""
    environment = bucket | {"GPT2_JAX_COMPILATION_CACHE": "gs://bucket/programs"}
    assert in_bucket(environment, code).startswith("b'entry' None gs://bucket/programs/")


_SWEEP = """
from gpt2_jax.sweeps import Sweep, axis

def get_sweep():
    rates = axis("schedule.learning_rate", [1e-3, 3e-3])
    return Sweep("config.py", rates, overrides={"eval.sample_tokens": 0})
"""


def test_a_sweep_in_a_bucket_has_the_results_of_one_on_a_disk(lab, bucket):
    (lab / "sweep.py").write_text(_SWEEP)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(lab / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = cache | os.environ | SETTINGS | bucket

    def sweep(out):
        command = [sys.executable, "-m", "gpt2_jax", "sweep", "--sweep", "sweep.py", "--out", out]
        done = subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "2 points: 2 done; gs://bucket/sweep/results.csv" in sweep("gs://bucket/sweep")
    assert "2 of them done before; 0 tokens to train" in sweep("gs://bucket/sweep")
    sweep("disk")
    in_bucket(bucket, "fs.get('bucket/sweep', sys.argv[1], True)", str(lab / "copy"))
    ours, expected = lab / "copy", lab / "disk"
    assert (ours / "results.csv").read_bytes() == (expected / "results.csv").read_bytes()
    names = {path.name for path in (expected / "points").iterdir()}
    assert {path.name for path in (ours / "points").iterdir()} == names
    for name in names:
        files = {"point.json", "status.json", "log.txt", "run_info.json", "run"}
        assert {path.name for path in (ours / "points" / name).iterdir()} == files
        assert b"step 20/20" in (ours / "points" / name / "log.txt").read_bytes()
    assert not (ours / "lock").exists()
    assert json.loads((ours / "sweep.json").read_text())["environment"]["device"] == "1 x cpu"
