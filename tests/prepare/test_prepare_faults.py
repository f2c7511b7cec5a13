"""Tests, with real processes, what runs of `prepare` leave that end too early, and resuming."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The command itself, but with work items so small that a few megabytes make many.
_COMMAND = """
from gpt2_jax.cli.main import console
from gpt2_jax.prepare.prepare import prepare
prepare.__kwdefaults__["work_item_bytes"] = 1 << 16
if __name__ == "__main__":
    console()
"""
_WORDS = ["the", "tokens", "of", "naïve", "日本", "words,", "don't", "they?", "1234", "\n", "\n\n"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the command, a text of 120 work items, and what an undisturbed run makes."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "command.py").write_text(_COMMAND)
    rng = random.Random(5)
    text = " ".join(rng.choice(_WORDS) for _ in range(1_500_000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    process = start(folder, "whole")
    assert process.wait(timeout=120) == 0
    return folder


def start(folder, out, text="text.txt"):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ("prepare", "--input", text, "--out", out, "--workers", "2")
    return subprocess.Popen(
        [sys.executable, "command.py", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group to signal, as a terminal or a scheduler does
        # A shell makes what it runs in the background ignore Ctrl-C, which may include pytest.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def workers(process):
    """The ids of the processes that encode."""
    words = ["ps", "-ww", "-o", "pid=,args=", "-g", str(process.pid)]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


def sums(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()
    }


def last_line(errors):
    """The last line of a run, which on a slow machine follows lines of progress."""
    *progress, last = errors.splitlines()
    assert all(" work items, " in line for line in progress), errors
    return last


def wait_for_items(process, staging, count):
    """Waits until so many work items are encoded; returns False if the run ends before."""
    deadline = time.monotonic() + 60
    while len(list(staging.glob("parts/*.json"))) < count:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_resumed_without_a_difference(place):
    staging, out = place / ".killed.preparing", place / "killed"
    rng = random.Random(11)
    done = 0
    for moment in sorted(rng.sample(range(1, 36), 3)):
        process = start(place, "killed")
        assert wait_for_items(process, staging, moment), process.communicate()
        time.sleep(rng.random() * 0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not out.exists()
        assert len(list(staging.glob("parts/*.json"))) >= max(moment, done)
        done = moment
    process = start(place, "killed")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "resuming: " in errors
    assert sums(out) == sums(place / "whole")
    assert not staging.exists()


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(place):
    process = start(place, "orphans")
    assert wait_for_items(process, place / ".orphans.preparing", 2)
    assert workers(process)
    process.kill()  # the one process, not its group
    process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = subprocess.run(["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True)
        if not [state for state in left.stdout.split() if not state.startswith(b"Z")]:
            return
        time.sleep(0.05)
    raise AssertionError("workers are still running 10 seconds after the run was killed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")],
)
def test_a_signal_to_all_is_one_line_and_the_same_command_resumes(place, number, word):
    name = f"stopped-{number}"
    staging = place / f".{name}.preparing"
    process = start(place, name)
    assert wait_for_items(process, staging, 5)
    began = time.monotonic()
    for pid in workers(process):  # a scheduler may signal them first
        os.kill(pid, number)
    time.sleep(0.2)
    os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert not out
    assert last_line(errors) == (
        f"{word}: run the same command again to resume; encoded work items are kept"
    )
    assert len(list(staging.glob("parts/*.json"))) >= 5
    process = start(place, name)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "resuming: " in errors
    assert sums(place / name) == sums(place / "whole")


@pytest.mark.slow
def test_a_text_that_changes_is_one_line_and_once_restored_the_run_resumes(place):
    text, out = place / "changing.txt", "changing"
    shutil.copy2(place / "text.txt", text)
    process = start(place, out, text.name)
    assert wait_for_items(process, place / f".{out}.preparing", 5), process.communicate()
    os.truncate(text, text.stat().st_size // 2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert last_line(errors) == (
        f"error: {text} changed while it was being prepared: run the same command again when the "
        "file is complete"
    )
    assert not (place / out).exists()
    shutil.copy2(place / "text.txt", text)
    process = start(place, out, text.name)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "resuming: " in errors, errors
    for name in ("train_000000.bin", "val_000000.bin"):
        assert sums(place / out)[name] == sums(place / "whole")[name]


@pytest.mark.slow
def test_two_runs_at_once_do_not_interfere(place):
    first = start(place, "shared")
    assert wait_for_items(first, place / ".shared.preparing", 1)
    second = start(place, "shared")
    out, errors = second.communicate(timeout=60)
    _, first_errors = first.communicate(timeout=120)
    assert first.returncode == 0, first_errors
    assert sums(place / "shared") == sums(place / "whole")
    if second.returncode == 0:  # the first had finished by then
        assert "already prepared" in out
    else:
        assert second.returncode == 2
        assert last_line(errors).startswith("error: --out shared ")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_out_alone(place):
    """The disk is a file system of 2 MiB in memory, enough for some work items but not for all."""
    (place / "small").mkdir()
    script = (
        "mount -t tmpfs -o size=2m tmpfs small && "
        f"{sys.executable} command.py prepare --input text.txt --workers 2 --out small/out; "
        "echo $?; ls -A small; ls small/.out.preparing/parts | grep -c json"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    status, *listing, encoded = done.stdout.split()
    assert status == "78", done.stderr
    assert listing == [".out.preparing"]
    assert 1 <= int(encoded) < 40
    message = last_line(done.stderr)
    assert message.startswith("error: cannot write --out small/out (No space left on device): make")
