from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from gpt2_jax.parallel import stop as stop_module


def test_processes_ask_with_numbers_from_one_wherever_the_run_stands(monkeypatch):
    # JAX waits for the number after the largest it has seen, which is 1 where none has asked yet.
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        stop_module.multihost_utils,
        "reached_preemption_sync_point",
        lambda number: asked.append(number) or number == 2,
    )
    stop = stop_module.StopRequest()
    try:
        assert [stop.requested() for _ in range(3)] == [False, True, False]
        assert asked == [1, 2, 3]
    finally:
        stop.close()


_SCRIPT = """
import ctypes, os, sys, time
from gpt2_jax.parallel.stop import StopRequest
stop = StopRequest()
if len(sys.argv) > 2:
    stop.note_saved(int(sys.argv[2]))
print("ready", flush=True)
if sys.argv[1] == "c":
    for _ in range(9):  # a signal ends one of them; meanwhile Python runs no handler
        ctypes.CDLL(None).sleep(60)
else:
    while not stop.requested():
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "where", "step", "since"),
    [
        (signal.SIGINT, "python", "7", " since step 7"),
        pytest.param(signal.SIGTERM, "python", None, "", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "c", None, "", marks=pytest.mark.slow),
        (signal.SIGTERM, "c", "0", " since step 0"),
    ],
)
def test_the_first_request_asks_and_the_second_ends_at_once(number, where, step, since):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, where, *([step] if step else [])],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    name = signal.Signals(number).name
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline().startswith(f"{name}: finishing the step and saving")
        if where == "python":
            assert process.stdout.readline() == "asked\n"
        # As `timeout` sends it: the same request, so that the process goes on.
        process.send_signal(number)
        time.sleep(stop_module.SAME_REQUEST_SECONDS + 0.2)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        rest = process.stderr.read()
        assert rest == f"\n{name}: stopped at once; nothing was saved{since}\n"
    finally:
        process.kill()
        process.communicate()


def test_what_was_there_before_is_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        stop_module.StopRequest().close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [thread for thread in threading.enumerate() if thread.name == "signals"]
