"""A run whose workdir is in a bucket, against a fake server of Google Cloud Storage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_jax.data.corpora import Document
from gpt2_jax.data.prepare import prepare
from tests.runs import CONFIG, NO_SAMPLE, losses, train

pytestmark = [pytest.mark.gcs, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def bucket():
    """The environment in which gs://bucket is the fake one."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "gcs_server.py"), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert any(line == "ready\n" for line in server.stdout)
        address = f"http://127.0.0.1:{port}"
        yield {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
    finally:
        server.kill()
        server.wait()


def in_bucket(bucket, code, *words):
    """Runs a line of Python with the bucket's file system as `fs`."""
    code = f"import gcsfs, sys; fs = gcsfs.GCSFileSystem(); {code}"
    subprocess.run([sys.executable, "-c", code, *words], env=os.environ | bucket, check=True)


def test_a_run_in_a_bucket_is_stopped_resumed_and_sampled_from(tmp_path, bucket):
    prepare([Document("data", "one fish two fish " * 80)], "byte", tmp_path / "data")
    (tmp_path / "config.py").write_text(CONFIG.format(data=str(tmp_path / "data")))
    workdir, settings = "gs://bucket/run", {"devices": 1, "env": bucket}
    board = "--config.log.tensorboard=True"
    train(tmp_path, workdir, "--stop_at_step", "10", NO_SAMPLE, board, **settings)
    train(tmp_path, workdir, board, **settings)
    command = ["sample", "--model", workdir, "--prompt", "one", "--max_new_tokens", "5", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "gpt2_jax", *command],
        env=os.environ | bucket,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["samples"], done.stderr

    # An object that is not the one that was saved is found without a download.
    in_bucket(
        bucket,
        "path, *_ = fs.find('bucket/run/checkpoints/20/params/d'); data = bytearray(fs.cat(path)); "
        "data[len(data) // 2] ^= 1; fs.pipe(path, bytes(data))",
    )
    said = train(tmp_path, workdir, board, **settings)
    assert "checkpoints/20 is damaged (params/d/" in said and "has crc32c" in said
    assert "from step 16 to 20" in said

    in_bucket(bucket, "fs.get('bucket/run', sys.argv[1], True)", str(tmp_path / "copy"))
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"config.json", "checkpoints", "metrics.jsonl", "samples", "tensorboard"}
    assert len(list((tmp_path / "copy" / "tensorboard").iterdir())) == 3
    steps = {path.name for path in (tmp_path / "copy" / "checkpoints").iterdir()}
    assert {"16", "20", "20.damaged"} <= steps
    train(tmp_path, tmp_path / "local", NO_SAMPLE, devices=1)
    assert losses(tmp_path / "copy") == losses(tmp_path / "local")
