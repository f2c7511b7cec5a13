"""Starts the fake Google Cloud Storage of `gcs_server.py` for tests, and puts objects into it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path


@contextlib.contextmanager
def fake_storage():
    """Yields the environment variables with which gs://bucket is a fake one, empty at first."""
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


def in_bucket(environment, code, *words):
    """Returns what a program prints that uses `fs`, the fake storage."""
    done = subprocess.run(
        [sys.executable, "-c", f"import gcsfs, sys\nfs = gcsfs.GCSFileSystem()\n{code}", *words],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
