from __future__ import annotations

import asyncio
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import serialization

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError
from gpt2_jax.training.saving import Saver, check_none_lost, note_saved
from gpt2_jax.training.state import TrainState
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import (
    Clock,
    Recorder,
    lines,
    make_config,
    make_setup,
    saved_steps,
    steps_with,
)

_STATE = TrainState(
    step=jnp.int32(0),
    params={"wte": jnp.ones(3)},
    opt_state=(),
    bad_steps=jnp.int32(0),
    loss_window=None,
)


class FakeStore:
    """A store whose saves fail as told, when they start or while they are in progress."""

    def __init__(self, *failures):
        self.failures, self.calls, self.busy = iter(failures), [], False
        self.failing_at = ""

    def save(self, step, params, rest, meta):
        self.failing_at = next(self.failures, "")
        if self.failing_at == "start":
            raise StorageError("no space")
        self.calls.append((step, meta["step"]))

    def wait(self):
        if self.failing_at == "end":
            raise StorageError("no space")

    def saving(self):
        return self.busy

    def steps(self):
        return sorted((step for step, _ in self.calls), reverse=True)


def make_saver(workdir, store, clock=None, on_saved=lambda step: None, **changes):
    messages, flushes = [], []
    setup = types.SimpleNamespace(tokenizer={"name": "byte"}, data_fingerprint="first")
    run = types.SimpleNamespace(
        config=make_config(**changes), workdir=workdir, setup=setup, base=None
    )
    saver = Saver(
        run,
        store,
        messages.append,
        lambda: flushes.append(True),
        on_saved=on_saved,
        **({"clock": clock} if clock else {}),
    )
    return saver, messages, flushes


def test_a_save_flushes_the_metrics_and_is_noted_once_it_is_committed(tmp_path):
    store, noted = FakeStore(), []
    saver, messages, flushes = make_saver(tmp_path, store, on_saved=noted.append)
    saver.save(5, _STATE)
    assert flushes == [True] and not (tmp_path / "saved_step").exists()
    store.busy = True
    saver.poll(6, {})
    assert not (tmp_path / "saved_step").exists() and noted == []
    store.busy = False
    saver.poll(7, {})
    assert noted == [5] and (tmp_path / "saved_step").read_text() == "5\n"
    saver.save(10, _STATE)
    saver.finish()
    assert (tmp_path / "saved_step").read_text() == "10\n"
    assert store.calls == [(5, 5), (10, 10)] and messages == [] and noted == [5, 10]


def test_a_failed_save_is_a_warning_and_the_next_resets_the_count(tmp_path):
    store = FakeStore("start", "end", "", "end", "")
    saver, messages, _ = make_saver(tmp_path, store, checkpoint__max_failures=3)
    for step in range(1, 6):
        saver.save(step, _STATE)
    saver.finish()
    counts = ["failure 1 of 3", "failure 2 of 3", "failure 1 of 3"]
    assert len(messages) == 3
    for message, count in zip(messages, counts, strict=True):
        assert message.startswith("warning: no space") and count in message


@pytest.mark.parametrize("failing_at", ["start", "end"])
def test_too_many_failures_in_a_row_end_the_run(tmp_path, failing_at):
    saver, messages, _ = make_saver(
        tmp_path, FakeStore("", *[failing_at] * 9), checkpoint__max_failures=2
    )
    with pytest.raises(StorageError, match="failure 2 in a row; the newest checkpoint is of step"):
        for step in range(1, 9):
            saver.save(step, _STATE)
    assert len(messages) == 1


def test_the_last_save_must_succeed(tmp_path):
    saver, messages, _ = make_saver(tmp_path, FakeStore("end"))
    saver.save(5, _STATE)
    with pytest.raises(StorageError, match=r"no space; .*run the same command again to resume"):
        saver.finish()
    assert messages == []


def test_a_save_by_the_clock_counts_from_the_last_save_of_either_kind(tmp_path):
    clock, store = Clock(), FakeStore()
    saver, _, _ = make_saver(tmp_path, store, clock, checkpoint__every_minutes=2.0)
    for step, minutes in enumerate((1, 1, 1, 0.5, 0.5, 1.9, 0.2), start=1):
        clock.now += 60 * minutes
        if step == 4:
            saver.save(step, _STATE)  # by checkpoint.every
        saver.save_if_time(step, _STATE)
    assert [step for step, _ in store.calls] == [2, 4, 6]


def test_a_note_of_a_save_makes_missing_checkpoints_an_error(tmp_path):
    check_none_lost(tmp_path)
    note_saved(tmp_path, 7)
    with pytest.raises(StorageError, match=r"has saved step 7, but .*checkpoints no longer has"):
        check_none_lost(tmp_path)


@pytest.mark.slow
def test_a_save_holds_its_own_step_although_training_continues_meanwhile(tmp_path, monkeypatch):
    config = make_config(checkpoint__every=4, log__every=1)
    write, steps_at_write, copies = serialization.async_serialize_from_host, [], []

    async def write_later(*arguments, **settings):
        """Writes an array after the steps that take over the memory of the saved state."""
        await asyncio.sleep(0.3)
        steps_at_write.append(lines(tmp_path)[-1]["step"])
        return await write(*arguments, **settings)

    def evaluator(params, tick):
        copies.append(jax.tree.map(np.array, params))
        yield "eval/count", float(len(copies))

    monkeypatch.setattr(serialization, "async_serialize_from_host", write_later)
    trainer = Trainer(config, tmp_path, make_setup(config, [evaluator]))
    trainer.run()
    assert saved_steps(tmp_path) == [4, 8, 12] and len(copies) == 3
    assert {step - 4 for step in steps_at_write} & {2, 3, 4}, steps_at_write
    store = CheckpointStore(tmp_path / "checkpoints", read_only=True)
    for step, expected in zip((4, 8, 12), copies, strict=True):
        restored = store.restore_params(step, trainer.constants.abstract.params)
        assert jax.tree.all(jax.tree.map(np.array_equal, restored, expected))
    store.close()


@pytest.mark.slow
def test_a_run_without_its_checkpoints_does_not_start_over(tmp_path):
    config = make_config(eval__every=0)

    def train(stop_at_step=None):
        return Trainer(config, tmp_path, make_setup(config, [Recorder()])).run(stop_at_step)

    train(stop_at_step=7)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.rename(tmp_path / "elsewhere")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for make in (lambda: None, checkpoints.mkdir):
        make()
        with pytest.raises(StorageError, match=r"has saved step 7, but .* restore it, or remove"):
            train()
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    checkpoints.rmdir()
    (tmp_path / "elsewhere").rename(checkpoints)
    assert train()["step"] == 12 and (tmp_path / "saved_step").read_text() == "12\n"
    shutil.rmtree(checkpoints)
    (tmp_path / "saved_step").unlink()
    assert train(stop_at_step=1)["step"] == 1


@pytest.mark.slow
def test_multiples_of_keep_every_stay_and_the_newest_is_resumed_from(tmp_path):
    config = make_config(
        checkpoint__every=2, checkpoint__keep=1, checkpoint__keep_every=4, eval__every=0
    )
    Trainer(config, tmp_path, make_setup(config)).run(10)
    assert saved_steps(tmp_path) == [4, 8, 10]
    shutil.rmtree(tmp_path / "checkpoints" / "10" / "params")
    Trainer(config, tmp_path, make_setup(config)).run(11)
    assert steps_with(tmp_path, "loss") == [1, 3, 6, 9, 11]  # from step 8
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"4", "8", "10.damaged", "11"}
