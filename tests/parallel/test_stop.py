from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["python", "c"])
def test_the_first_signal_asks_and_the_second_ends_at_once(number, where):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, where],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == "\n"
        name = signal.Signals(number).name
        assert process.stderr.readline().startswith(f"{name}: finishing the step and saving")
        if where == "python":
            assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        assert process.wait(20) == 128 + number
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
