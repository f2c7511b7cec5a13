from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.in_process import launch

_SCRIPT = Path(__file__).parents[2] / "launch" / "local.py"
_RANK = "import os, signal, sys, time; rank = int(os.environ['JAX_PROCESS_ID']); "


def local(code, *flags, processes=3):
    words = [sys.executable, str(_SCRIPT), "--processes", str(processes), *flags]
    return [*words, "--", sys.executable, "-c", _RANK + code]


def run(code, *flags, **settings):
    return subprocess.run(
        local(code, *flags, **settings), capture_output=True, text=True, timeout=60
    )


def test_each_process_is_told_its_place_and_only_the_first_is_shown():
    names = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID", "NUM_CPU_DEVICES", "PLATFORMS")
    # One write, because the first process shares the terminal with the launcher.
    code = (
        f"settings = ' '.join(os.environ['JAX_' + name] for name in {names}); "
        "os.write(2, f'{settings}\\n'.encode())"
    )
    done = run(code, "--devices_per_process", "2")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("localhost:") and line.endswith(" 3 0 2 cpu")
    shown = run(code, "--devices_per_process", "2", "--all_output").stderr
    assert sorted(line[:3] for line in shown.splitlines() if line[0] == "[") == ["[1]", "[2]"]


def test_lines_of_several_processes_stay_whole(monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    code = "[print('x' * 20, flush=True) for _ in range(200 if rank else 0)]"
    shown = run(code, "--all_output", processes=5).stderr.splitlines()
    assert sorted(shown) == [f"[{rank}] {'x' * 20}" for rank in range(1, 5) for _ in range(200)]


def test_the_first_failure_is_quoted_and_ends_all():
    code = "print('rank', rank, flush=True); time.sleep(0.3 if rank == 2 else 60); sys.exit(9)"
    began = time.monotonic()
    done = run(code)
    assert done.returncode == 9 and time.monotonic() - began < 20
    assert done.stdout == "rank 0\n"
    assert done.stderr.splitlines() == ["[2] rank 2", "process 2 of 3 ended with 9"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("sys.exit(75)", 75),
        ("time.sleep(rank * 0.4); sys.exit(78 if rank == 1 else 75)", 78),
        ("time.sleep(rank * 0.4); sys.exit(134) if rank else os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_status_tells_how_the_run_ended(code, status):
    assert run(code).returncode == status


def test_one_that_lags_far_behind_the_others_is_killed():
    done = run("time.sleep(60 if rank == 1 else 0)", "--grace", "0.1")
    assert done.returncode == 137


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_once_and_a_second_kills(number):
    code = (
        f"signals = {{{int(number)}}}; signal.pthread_sigmask(signal.SIG_BLOCK, signals); "
        "print(rank, flush=True); signal.sigwait(signals); print('signalled', flush=True); "
        "time.sleep(60 if sys.argv[-1] == 'stubborn' else 0); sys.exit(75)"
    )
    for stubborn, expected in ((False, 75), (True, 137)):
        words = [*local(code, "--all_output", processes=2), *(["stubborn"] if stubborn else [])]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "0\n"
            assert process.stderr.readline() == "[1] 1\n"
            process.send_signal(number)
            if stubborn:
                assert process.stdout.readline() == "signalled\n"
                assert process.stderr.readline() == "[1] signalled\n"
                process.send_signal(number)  # the same request
                time.sleep(0.7)
                assert process.poll() is None
                process.send_signal(number)
            assert process.wait(timeout=30) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--processes"),
        (["--processes", "0", "--", "true"], "'0'"),
        (["--processes", "2"], "the command is missing: put it after --"),
        (["--processes", "2", "--port", "65536", "--", "true"], "a port between 1 and 65535"),
        (["--processes", "2", "--grace", "nan", "--", "true"], "'nan'"),
        (["--processes", "2", "--", "/no/such/program"], "/no/such/program"),
    ],
)
def test_wrong_input_is_one_line(words, message):
    done = launch("local.py", *words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_dry_run_prints_commands_that_do_the_same():
    done = run("print('a b')", "--dry-run", "--port", "1234", processes=2)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and "JAX_PROCESS_ID=1" in lines[1] and "localhost:1234" in lines[1]
    shown = subprocess.run(shlex.split(lines[1]), capture_output=True, text=True, env=os.environ)
    assert shown.stdout == "a b\n"
