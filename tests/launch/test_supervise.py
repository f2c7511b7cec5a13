from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.in_process import launch

_SCRIPT = Path(__file__).parents[2] / "launch" / "supervise.py"
# Ends with the next status of the list in a file; if it is negative, by that signal.
_CHILD = """
read -r status rest <"$0"
printf %s "$rest" >"$0"
((status >= 0)) || kill "$status" $$
exit "$status"
"""
_FAST = ("--backoff", "0.01", "--max_backoff", "0.02")


def supervise(*flags, command=()):
    words = [sys.executable, str(_SCRIPT), *flags, *(["--", *command] if command else [])]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def run(tmp_path, statuses, *flags):
    """Returns (exit status, standard error, statuses that were not reached)."""
    path = tmp_path / "statuses"
    path.write_text(" ".join(map(str, statuses)) + "\n")
    done = supervise(*_FAST, *flags, command=["bash", "-c", _CHILD, str(path)])
    return done.returncode, done.stderr, path.read_text().split()


def test_what_a_restart_can_fix_is_restarted_until_it_is_done(tmp_path):
    status, errors, left = run(tmp_path, [75, 77, 134, -signal.SIGKILL, -signal.SIGABRT, 0, 75])
    assert (status, left) == (0, ["75"])
    lines = errors.splitlines()
    assert len(lines) == 5 and all("restarting it in" in line for line in lines)


@pytest.mark.parametrize("status", [0, 1, 2, 76, 78])
def test_anything_else_ends_it_with_the_same_status(tmp_path, status):
    ended, errors, left = run(tmp_path, [75, status, 75])
    assert (ended, left) == (status, ["75"])
    message = f"the command ended with {status} after 0 s, which a restart would not fix"
    assert (message in errors) == (status != 0)


def test_short_runs_are_limited_and_waited_for_twice_as_long_each_time(tmp_path):
    flags = ("--max_fast_failures", "4", "--max_backoff", "0.03")
    status, errors, left = run(tmp_path, [77] * 9, *flags)
    assert (status, len(left)) == (77, 5)
    assert [line.split()[-2] for line in errors.splitlines()[:3]] == ["0.01", "0.02", "0.03"]
    assert "giving up after 4 run(s) in a row of less than --healthy 600 s" in errors


def test_a_run_that_lasted_resets_the_count(tmp_path):
    flags = ("--max_fast_failures", "2", "--healthy", "0")
    assert run(tmp_path, [77] * 5 + [0], *flags)[::2] == (0, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_is_started_again(number):
    child = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPT), *_FAST, "--", sys.executable, "-c", child],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=20) == 75
    assert process.stdout.read() == ""


def test_a_signal_while_it_waits_ends_it():
    flags = ("--backoff", "60", "--max_backoff", "60")
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPT), *flags, "--", sys.executable, "-c", "exit(77)"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "restarting it in 60 s" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 77
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the command is missing: put it after --"),
        (["--", "/no/such/program"], "/no/such/program"),
        (["--", "no-such-program"], "no-such-program: no such command on the PATH"),
        (["--backoff", "soon", "--", "true"], "'soon'"),
        (["--healthy", "-1", "--", "true"], "seconds, at least 0, not '-1'"),
        (["--max_backoff", "nan", "--", "true"], "'nan'"),
        (["--max_fast_failures", "0", "--", "true"], "--max_fast_failures: must be an integer"),
        (["--status_file", "/no/such/folder/file", "--", "true"], "cannot write --status_file /no"),
        (["--restarts", "3", "--", "true"], "--restarts"),
    ],
)
def test_wrong_input_is_one_line(words, message):
    done = launch("supervise.py", *words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_status_file_has_the_status_even_of_a_command_that_can_not_run(tmp_path):
    file = tmp_path / "status"
    for command, status in (("exit 76", 76), ("exit 0", 0)):
        supervise("--status_file", str(file), command=["sh", "-c", command])
        assert file.read_text() == f"{status}\n"
    supervise("--status_file", str(file), command=["/no/such/program"])
    assert file.read_text() == "2\n"


def test_a_dry_run_prints_the_command_and_runs_nothing(tmp_path):
    done = launch("supervise.py", "--dry-run", "--", "touch", str(tmp_path / "a b"))
    assert done.stdout == f"touch '{tmp_path}/a b'\n"
    assert list(tmp_path.iterdir()) == []
