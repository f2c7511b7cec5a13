"""Runs of `gpt2-jax prepare` that end too early, as real processes: what is left, and going on."""

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

# The command itself, but with parts so small that a few megabytes make many.
_COMMAND = """
from gpt2_jax.cli.main import console
from gpt2_jax.prepare.prepare import prepare
prepare.__kwdefaults__["part_bytes"] = 1 << 16
if __name__ == "__main__":
    console()
"""
_WORDS = ["the", "tokens", "of", "naïve", "日本", "words,", "don't", "they?", "1234", "\n", "\n\n"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the command, a text of 120 parts and what comes of it undisturbed."""
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
        # A shell starts what it runs in the background deaf to Ctrl-C, pytest perhaps among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def workers(process):
    """Numbers of the processes that encode."""
    words = ["ps", "-ww", "-o", "pid=,args=", "-g", str(process.pid)]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


def sums(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()
    }


def last_line(errors):
    """What a run ends with; on a slow machine, lines of progress come before it."""
    *progress, last = errors.splitlines()
    assert all(" parts, " in line for line in progress), errors
    return last


def wait_for_parts(process, staging, count):
    """Waits until so many parts are done; False if the run has ended before."""
    deadline = time.monotonic() + 60
    while len(list(staging.glob("parts/*.json"))) < count:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


def test_killed_at_any_moment_the_next_run_ends_as_if_nothing_had_been(place):
    staging, out = place / ".killed.preparing", place / "killed"
    rng = random.Random(11)
    done = 0
    for moment in sorted(rng.sample(range(1, 36), 3)):
        process = start(place, "killed")
        assert wait_for_parts(process, staging, moment), process.communicate()
        time.sleep(rng.random() * 0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not out.exists()
        assert len(list(staging.glob("parts/*.json"))) >= max(moment, done)
        done = moment
    process = start(place, "killed")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "parts from the run before" in errors
    assert sums(out) == sums(place / "whole")
    assert not staging.exists()


def test_workers_do_not_outlive_a_killed_run(place):
    process = start(place, "orphans")
    assert wait_for_parts(process, place / ".orphans.preparing", 2)
    assert workers(process)
    process.kill()  # the one process, not its group
    process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = subprocess.run(["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True)
        if not [state for state in left.stdout.split() if not state.startswith(b"Z")]:
            return
        time.sleep(0.05)
    raise AssertionError("workers are still there 10 seconds after the run was killed")


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_to_all_is_one_line_and_the_same_command_goes_on(place, number, said):
    name = f"stopped-{number}"
    staging = place / f".{name}.preparing"
    process = start(place, name)
    assert wait_for_parts(process, staging, 5)
    began = time.monotonic()
    for pid in workers(process):  # a scheduler may come to them first
        os.kill(pid, number)
    time.sleep(0.2)
    os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert not out
    assert last_line(errors) == (
        f"{said}: parts that are done are kept; run the same command again to go on"
    )
    assert len(list(staging.glob("parts/*.json"))) >= 5
    process = start(place, name)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "taking up" in errors
    assert sums(place / name) == sums(place / "whole")


def test_a_text_that_changes_is_one_line_and_put_back_it_goes_on(place):
    text, out = place / "changing.txt", "changing"
    shutil.copy2(place / "text.txt", text)
    process = start(place, out, text.name)
    assert wait_for_parts(process, place / f".{out}.preparing", 5), process.communicate()
    os.truncate(text, text.stat().st_size // 2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert last_line(errors) == (
        f"error: {text} changed while it was being prepared: run the same command again when it is "
        "whole"
    )
    assert not (place / out).exists()
    shutil.copy2(place / "text.txt", text)
    process = start(place, out, text.name)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "taking up" in errors, errors
    for name in ("train_000000.bin", "val_000000.bin"):
        assert sums(place / out)[name] == sums(place / "whole")[name]


def test_two_runs_at_once_do_not_meet(place):
    first = start(place, "shared")
    assert wait_for_parts(first, place / ".shared.preparing", 1)
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


def test_a_full_disk_is_one_line_and_leaves_out_alone(place):
    """The disk is a file system of 2 MiB in memory: enough for some parts, not for all."""
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
    status, *listing, parts = done.stdout.split()
    assert status == "2", done.stderr
    assert listing == [".out.preparing"]
    assert 1 <= int(parts) < 40
    said = last_line(done.stderr)
    assert said.startswith("error: cannot write --out small/out (No space left on device): make")
