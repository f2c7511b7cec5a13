"""Reports of sweeps in a bucket, against a fake server of Google Cloud Storage."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fake_gcs import fake_storage, in_bucket
from tests.sweeps.made_sweep import write_sweep

pytestmark = [pytest.mark.gcs, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_sweep_in_a_bucket_has_its_report_there_and_a_record_here(tmp_path):
    finals = {"learned": [1.5, 1.6, 1.55], "rotary": [1.45, 1.56, 1.5]}
    folder = write_sweep(tmp_path / "s", finals, baseline="learned")

    def report(*words: str) -> str:
        command = [sys.executable, "-m", "gpt2_jax", "report", *words]
        done = subprocess.run(command, env=os.environ | bucket, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with fake_storage() as bucket:
        in_bucket(bucket, "fs.put(sys.argv[1], 'bucket/sweeps/s', recursive=True)", str(folder))
        here = report(str(folder))
        there = report("gs://bucket/sweeps/s")
        assert there.split("\n\nwrote")[0] == here.split("\n\nwrote")[0]
        same = "print(fs.cat('bucket/sweeps/s/report.md') == open(sys.argv[1], 'rb').read())"
        assert in_bucket(bucket, same, str(folder / "report.md")) == "True\n"
        assert "| s |" in report("--all", "gs://bucket/sweeps")
        report("gs://bucket/sweeps/s", "--record", str(tmp_path / "r"))
    assert report(str(tmp_path / "r")).split("\n\nwrote")[0] == here.split("\n\nwrote")[0]
