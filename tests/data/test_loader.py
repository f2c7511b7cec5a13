"""Tests that batches are pure in (seed, step), cover the tokens, and are placed on devices."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from gpt2_jax.data.documents import IsolatedDocuments
from gpt2_jax.data.loader import (
    Batch,
    EvalWindows,
    TrainLoader,
    device_batches,
    place,
    rows_to_make,
)
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError

T = 8
# Every token is its own position, so that a window shows where it was cut.
TOKENS = TokenArray(np.array_split(np.arange(1000, dtype=np.uint16), 7))


def make_loader(seed=3, batch_size=16, tokens=TOKENS):
    return TrainLoader(tokens, batch_size=batch_size, context_length=T, seed=seed)


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True) if a is not b)


def mesh_sharding(data, fsdp, tensor):
    devices = np.array(jax.devices()[: data * fsdp * tensor]).reshape(data, fsdp, tensor)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def test_targets_are_inputs_shifted_by_one():
    batch = make_loader().rows(5, range(16))
    assert batch.inputs.shape == batch.targets.shape == (16, T)
    assert [array.dtype for array in (*batch[:1], batch.inputs, batch.targets)] == [
        np.uint16,
        np.int32,
        np.int32,
    ]
    assert np.array_equal(batch.targets, batch.inputs + 1)
    assert np.array_equal(np.diff(batch.inputs, axis=1), np.ones((16, T - 1)))
    assert batch.weights is None


def test_batches_are_pure_in_seed_and_step():
    steps = [40, 0, 7, 100_000_000]
    forwards = {step: make_loader().rows(step, range(16)) for step in steps}
    one = make_loader()
    assert all(equal(one.rows(step, range(16)), forwards[step]) for step in reversed(steps))
    assert not equal(make_loader(seed=4).rows(7, range(16)), forwards[7])
    assert not equal(forwards[0], forwards[7])


def test_isolated_documents_begin_at_their_first_token():
    plain = make_loader()
    isolated = IsolatedDocuments(plain, 100)
    count = 0
    for step in range(8):
        batch = isolated.rows(step, range(16))
        assert equal(batch[:2], plain.rows(step, range(16))[:2])
        assert batch.segments.dtype == np.int32
        assert np.array_equal(
            batch.segments,
            (batch.inputs >= 100)
            & (batch.inputs < 100 + T)
            & ((batch.inputs == 100).any(1, keepdims=True)),
        )
        count += batch.segments.any()
    assert count
    placed = place(functools.partial(isolated.rows, 0), mesh_sharding(2, 2, 2), (16, T))
    assert placed.segments.sharding == placed.tokens.sharding


def test_origins_say_where_every_row_was_read():
    loader = TrainLoader(TOKENS, batch_size=16, context_length=T, seed=3, folder="data/numbers")
    for step in (0, 40):  # the first epoch, and another offset
        batch, origins = loader.rows(step, range(16)), loader.origins(step)
        assert origins == [("data/numbers", first) for first in batch.inputs[:, 0].tolist()]


def test_any_rows_are_the_rows_of_the_whole_batch():
    loader = make_loader()
    batch = loader.rows(9, range(16))
    some = loader.rows(9, [14, 3, 3])
    assert equal(some, Batch(batch.tokens[[14, 3, 3]]))
    halves = [loader.rows(9, range(8)), loader.rows(9, range(8, 16))]
    assert equal(batch, Batch(np.concatenate([half.tokens for half in halves])))


@pytest.mark.parametrize("batch_size", [16, 7])
def test_each_epoch_covers_every_window_once_and_cuts_elsewhere(batch_size):
    loader = make_loader(batch_size=batch_size)
    count = loader.windows_per_epoch
    assert count == (1000 - T) // T
    steps = range(-(-4 * count // batch_size))
    inputs = np.concatenate([loader.rows(step, range(batch_size)).inputs for step in steps])
    starts = inputs[:, 0]
    offsets, orders = [], []
    for epoch in range(4):
        of_epoch = starts[epoch * count : (epoch + 1) * count]
        offset = int(of_epoch.min())
        assert 0 <= offset < T
        assert sorted(of_epoch) == [offset + T * window for window in range(count)]
        offsets.append(offset)
        orders.append(tuple((of_epoch - offset) // T))
    assert len(set(offsets)) > 1 and len(set(orders)) == 4


@pytest.mark.parametrize("length", [2 * T, 2 * T + 1, 3 * T - 1, 3 * T])
def test_every_window_fits_at_every_offset(length):
    tokens = TokenArray([np.arange(length, dtype=np.uint16)])
    last = 0
    for seed in range(40):
        loader = make_loader(seed=seed, tokens=tokens, batch_size=loader_count(length))
        last = max(last, loader.rows(0, range(loader.batch_size)).targets.max())
    assert last <= length - 1


def loader_count(length):
    return (length - T) // T


def test_too_few_tokens_are_refused():
    with pytest.raises(UserError, match=r"has 15 tokens.* at least 16"):
        make_loader(tokens=TOKENS.slice(0, 15))
    with pytest.raises(UserError, match="has 1 tokens"):
        EvalWindows(TOKENS.slice(0, 1), batch_size=2, context_length=T)


@pytest.mark.parametrize("length", [2, T, T + 1, T + 2, 4 * T + 1, 5 * T, 1000])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_eval_target_is_scored_once(length, batch_size):
    windows = EvalWindows(TOKENS.slice(0, length), batch_size=batch_size, context_length=T)
    batches = [windows.rows(i, range(batch_size)) for i in range(len(windows))]
    scored = [batch.targets[batch.weights == 1] for batch in batches]
    assert np.array_equal(np.concatenate(scored), np.arange(1, length))
    for batch in batches:
        assert np.array_equal(
            batch.targets[batch.weights == 1] - 1, batch.inputs[batch.weights == 1]
        )
        padding = batch.weights == 0
        assert not batch.targets[padding].any()
        assert batch.weights.any()


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 2, 4), (1, 1, 8)])
def test_placed_batch_is_the_batch_on_every_device(shape):
    sharding = mesh_sharding(*shape)
    loader = make_loader()
    whole = loader.rows(4, range(16))
    placed = place(functools.partial(loader.rows, 4), sharding, (16, T))
    groups = shape[0] * shape[1]
    assert placed.tokens.shape == (16, T + 1) and placed.tokens.sharding == sharding
    assert len(placed.tokens.addressable_shards) == 8
    for shard in placed.tokens.addressable_shards:
        assert shard.data.shape == (16 // groups, T + 1)
        assert np.array_equal(shard.data, whole.tokens[shard.index])


def test_a_batch_that_does_not_divide_is_refused():
    loader = make_loader(batch_size=6)
    for call in (
        lambda: place(functools.partial(loader.rows, 0), mesh_sharding(4, 1, 2), (6, T)),
        lambda: device_batches(loader, mesh_sharding(4, 1, 2)),
    ):
        with pytest.raises(UserError, match=r"batch_size=6 .*divide"):
            call()


def test_device_batches_start_where_they_are_told():
    loader, sharding = make_loader(), mesh_sharding(2, 2, 2)
    with_prefetch = device_batches(loader, sharding, 37, prefetch=3)
    for step in range(37, 45):
        assert equal(next(with_prefetch), loader.rows(step, range(16)))
    with_prefetch.close()


def test_eval_windows_are_a_finite_source():
    windows = EvalWindows(TOKENS, batch_size=8, context_length=T)
    sharding = SingleDeviceSharding(jax.devices()[0])
    batches = list(device_batches(windows, sharding, stop_step=len(windows)))
    assert len(batches) == len(windows) == -(-999 // (8 * T))
    assert sum(float(batch.weights.sum()) for batch in batches) == 999


class Recorder:
    """Records the steps that are requested, and fails at one."""

    batch_size, context_length = 16, T

    def __init__(self, fail_at=None):
        self.loader, self.fail_at, self.steps = make_loader(), fail_at, []
        self.requested = threading.Semaphore(0)

    def rows(self, step, row_indices):
        if step == self.fail_at:
            raise OSError("the disk is gone")
        self.steps.append(step)
        self.requested.release()
        return self.loader.rows(step, row_indices)


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_prefetch_makes_just_so_many_and_closing_ends_the_thread():
    source = Recorder()
    batches = device_batches(source, mesh_sharding(8, 1, 1), prefetch=2)
    assert not data_threads(), "nothing runs before the first batch is requested"
    next(batches)
    for _ in range(3):
        assert source.requested.acquire(timeout=10)
    assert not source.requested.acquire(timeout=0.1)
    assert source.steps == [0, 1, 2]
    assert len(data_threads()) == 1
    batches.close()
    assert not data_threads()


def test_an_error_in_the_thread_reaches_the_consumer():
    batches = device_batches(Recorder(fail_at=2), mesh_sharding(8, 1, 1))
    assert len(list(itertools.islice(batches, 2))) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not data_threads()


# Two processes with two devices each, and an axis of replicas that runs across them: process 0 and
# process 1 hold the same rows, which a split by process number would get wrong without an error.
TWO_PROCESSES = """
import functools, sys
import jax
import numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
number, port, layout = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, number)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from gpt2_jax.data.loader import TrainLoader, place, rows_to_make
from gpt2_jax.data.shards import TokenArray

by_process = np.array(jax.devices()).reshape(2, 2)
devices = by_process.T if layout == "tensor_across" else by_process
mesh = jax.sharding.Mesh(devices, ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
sharding = NamedSharding(mesh, PartitionSpec("data"))
tokens = TokenArray([np.arange(1000, dtype=np.uint16)])
loader = TrainLoader(tokens, batch_size=4, context_length=8, seed=3)
batch = place(functools.partial(loader.rows, 6), sharding, (4, 8))
whole = loader.rows(6, range(4))
assert batch.tokens.shape == (4, 9)
for shard in batch.tokens.addressable_shards:
    assert np.array_equal(shard.data, whole.tokens[shard.index])
print("rows", *rows_to_make(sharding, (4, 8)), flush=True)
jax.distributed.shutdown()
"""


@pytest.mark.parametrize(
    ("layout", "rows"),
    [("tensor_across", ["rows 0 1 2 3"] * 2), ("data_across", ["rows 0 1", "rows 2 3"])],
)
@pytest.mark.slow
def test_two_processes_make_the_rows_their_devices_hold(layout, rows):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(number), port, layout],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    try:
        answers = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, answers, strict=True):
        assert process.returncode == 0, errors
    assert [out.strip().splitlines()[-1] for out, _ in answers] == rows


def test_one_process_makes_each_row_once():
    assert rows_to_make(mesh_sharding(2, 2, 2), (16, T)) == tuple(range(16))
