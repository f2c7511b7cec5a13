"""The watchdog in separate processes, because it ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

_CODE = """
import os, sys, threading, time
from gpt2_jax.training import watchdog
from gpt2_jax.training.watchdog import Watchdog

def wait_for_a_peer():
    threading.Event().wait()
"""


def start(code):
    words = [sys.executable, "-c", _CODE + code]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_hangs_ends_with_the_stacks_of_its_threads_and_one_line():
    process = start(
        "dog = Watchdog(0.6)\n"
        "threading.Thread(target=wait_for_a_peer, daemon=True).start()\n"
        "dog.report('step 17')\n"
        "wait_for_a_peer()\n"
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 77, errors
    assert errors.count("in wait_for_a_peer") == 2
    last = errors.splitlines()[-1]
    assert last.startswith("error: this process got no further than step 17 in 0.6 s: ")
    assert "--config.train.hang_timeout" in last


@pytest.mark.slow
def test_neither_progress_nor_a_stopped_process_is_a_hang():
    process = start(
        "with Watchdog(0.6) as dog:\n"
        "    for step in range(10):\n"
        "        dog.report('the same every time')\n"
        "        print(step, flush=True)\n"
        "        time.sleep(0.1)\n"
        "Watchdog(0)\n"
        "time.sleep(1)\n"  # nothing watches any more
    )
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""


@pytest.mark.slow
def test_it_ends_the_process_even_if_nobody_reads_its_standard_error():
    process = start(
        "watchdog._LAST_WORDS_S = 0.5\n"
        "Watchdog(0.5)\n"
        "while True:\n"
        "    os.write(2, b'more than the pipe takes')\n"
    )
    assert process.wait(timeout=60) == 77
    process.communicate()
