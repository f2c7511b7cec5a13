from __future__ import annotations

import os
import signal

import jax
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.parallel import distributed


@pytest.fixture
def joined(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    return calls


def test_a_single_process_joins_nothing(joined, monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    distributed.initialize()
    assert joined == []


def test_a_coordinator_in_the_environment_is_joined(joined, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    distributed.initialize()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    distributed.initialize()
    assert joined == [("localhost:1234", None, None), ("localhost:1234", 2, 1)]
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(UserError, match="JAX_PROCESS_ID"):
        distributed.initialize()


def test_only_process_zero_writes(monkeypatch):
    assert distributed.is_primary()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert not distributed.is_primary()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number, monkeypatch, capfd):
    statuses = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    before = signal.getsignal(number)
    stop = distributed.StopRequest()
    try:
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(1) and statuses == []
        assert f"{signal.Signals(number).name}: finishing the step" in capfd.readouterr().err
        os.kill(os.getpid(), number)
        assert statuses == [128 + number]
    finally:
        stop.close()
    assert signal.getsignal(number) is before
