from __future__ import annotations

import os
import types

import jax
import numpy as np
import pytest

from gpt2_jax.errors import PeersLost, UserError
from gpt2_jax.parallel import distributed, launched

_SETTINGS = ("JAX_", "OMPI_", "SLURM_", "TPU_", "MEGASCALE_")
_ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234"}


@pytest.fixture
def joined(monkeypatch):
    """Returns the calls of jax.distributed.initialize: (address, processes, index)."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    monkeypatch.setattr(launched, "metadata", lambda key: None)
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)
    return calls


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # not by srun
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None),  # and no TPU here
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, (None, 4, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}, (None, 4, 2)),
        (_ADDRESS | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, ("host:1234", 2, 1)),
        (_ADDRESS | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
    ],
)
def test_others_are_joined_where_a_launcher_says_there_are(joined, monkeypatch, settings, call):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    distributed.initialize()
    assert joined == ([] if call is None else [call])


@pytest.mark.parametrize(
    ("settings", "metadata", "others"),
    [
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, None, True),
        ({}, "one:1:10.0.0.1,two:2:10.0.0.2", True),
        ({}, "one", False),
        ({}, None, False),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "one,two", False),
    ],
)
def test_a_tpu_slice_of_several_hosts_is_one_run(joined, monkeypatch, settings, metadata, others):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launched, "metadata", lambda key: metadata)
    count, process = launched.launched_as(on_tpu=True)
    assert ((count or 1) > 1, process) == (others, None)


def test_hosts_count_where_jax_has_found_a_tpu(joined, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")  # as JAX has it where there are TPU chips
    try:
        distributed.initialize()
    finally:
        jax.config.update("jax_platforms", before)
    assert joined == [(None, None, None)]


@pytest.mark.parametrize(
    ("settings", "metadata", "index"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, {}, 1),
        ({}, {"agent-worker-number": "3", "worker-network-endpoints": "a,b,c,d"}, 3),
        (
            {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            {"agent-worker-number": "1", "worker-network-endpoints": "a,b"},
            3,
        ),
    ],
)
def test_a_host_of_a_slice_knows_its_index_without_jax(
    joined, monkeypatch, settings, metadata, index
):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launched, "metadata", metadata.get)
    assert launched.index_on_tpu() == index


def test_a_host_whose_index_nothing_states_says_what_to_set(joined):
    with pytest.raises(UserError, match="set TPU_WORKER_ID"):
        launched.index_on_tpu()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (_ADDRESS, "JAX_NUM_PROCESSES"),
        (_ADDRESS | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES"),
        (_ADDRESS | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "host", "JAX_NUM_PROCESSES": "2"}, "HOST:PORT"),
        ({"SLURM_STEP_NUM_TASKS": "2", "GPT2_JAX_START_TIMEOUT": "soon"}, "GPT2_JAX_START_TIMEOUT"),
    ],
)
def test_settings_that_make_no_sense_are_named(joined, monkeypatch, settings, named):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=named):
        distributed.initialize()
    assert joined == []


def test_a_failure_among_several_is_told_from_one_that_would_come_again(monkeypatch):
    def fails(reason, kind=jax.errors.JaxRuntimeError):
        with distributed.report_lost_peers():
            raise kind(reason)

    lost = "UNKNOWN: Gloo all-reduce failed: Connection closed by peer"
    with pytest.raises(jax.errors.JaxRuntimeError):
        fails(lost)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for kind in (jax.errors.JaxRuntimeError, ValueError):
        with pytest.raises(PeersLost, match="Connection closed"):
            fails(lost, kind)
    with pytest.raises(ValueError, match="not our fault"):
        fails("not our fault", ValueError)
    with pytest.raises(jax.errors.JaxRuntimeError):
        fails("RESOURCE_EXHAUSTED: Out of memory")


def test_only_process_zero_writes(monkeypatch):
    assert distributed.is_primary()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert not distributed.is_primary()


def test_an_error_of_process_zero_is_raised_in_all(monkeypatch):
    def refuse():
        raise UserError("in use")

    acted = []
    distributed.run_on_primary(lambda: acted.append(True))
    with pytest.raises(UserError, match="in use"):
        distributed.run_on_primary(refuse)
    # As it goes in process 1, where the action must not be done.
    messages = np.zeros((2, 1000), np.uint8)
    messages[0, : len("in use")] = list(b"in use")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    gathered = {
        "process_allgather": lambda mine: messages if not mine.any() else pytest.fail("says")
    }
    monkeypatch.setattr(distributed, "multihost_utils", types.SimpleNamespace(**gathered))
    with pytest.raises(UserError, match="in use"):
        distributed.run_on_primary(lambda: acted.append(True))
    messages[:] = 0
    distributed.run_on_primary(lambda: acted.append(True))
    assert acted == [True]
