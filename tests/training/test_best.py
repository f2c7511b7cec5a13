"""The checkpoint of the best step is kept, whatever interrupts the run or damages its files."""

from __future__ import annotations

import contextlib
import errno
import math
import os

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint import commit
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training import best as best_lib
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from tests.training.scored import best, record, saved, train
from tests.training.tiny import make_config, steps_with

_FALLS_AND_RISES = {2: 5.0, 4: 2.0, 6: 3.0, 8: 3.0, 10: 2.5, 12: 4.0}


def test_the_best_step_is_kept_beside_the_newest(tmp_path, capfd):
    results = train(tmp_path, _FALLS_AND_RISES)
    assert results["step"] == 12 and results["best_step"] == 4 and results["eval/loss"] == 4.0
    # Step 4 is not due to be saved: saves are after steps 5, 10 and 12.
    assert saved(tmp_path) == [4, 12]
    assert record(tmp_path) == {"metric": "eval/loss", "step": 4, "value": 2.0}
    line = capfd.readouterr().err.splitlines()[-1]
    assert line == (
        "best of 12 steps: 4, with eval/loss 2.0000: gpt2-jax sample --model "
        f"{tmp_path}/checkpoints/best"
    )
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    assert train(tmp_path, {}) == results
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


@pytest.mark.slow
def test_of_equal_steps_the_earlier_stays_and_one_without_a_number_is_none(tmp_path):
    values = {2: math.nan, 4: 2.0, 6: 2.0, 8: -math.inf, 10: math.nan, 12: 2.0}
    assert train(tmp_path, values)["best_step"] == 4
    assert saved(tmp_path) == [4, 12]


@pytest.mark.slow
def test_a_run_without_any_number_keeps_the_newest(tmp_path, capfd):
    results = train(tmp_path, dict.fromkeys(_FALLS_AND_RISES, math.nan))
    assert "best_step" not in results and saved(tmp_path) == [12]
    assert "no checkpoint is the best, because eval/loss was never finite" in capfd.readouterr().err


@pytest.mark.slow
def test_multiples_are_kept_too_and_a_larger_number_may_be_better(tmp_path):
    knobs = {"checkpoint__best": "max:eval/accuracy", "checkpoint__every": 3}
    train(tmp_path, {**_FALLS_AND_RISES, 12: 1.0}, checkpoint__keep_every=6, **knobs)
    assert saved(tmp_path) == [6, 12]
    assert record(tmp_path) == {"metric": "max:eval/accuracy", "step": 12, "value": -1.0}


@pytest.mark.slow
def test_the_best_checkpoint_holds_the_state_of_its_step(tmp_path):
    train(tmp_path / "best", _FALLS_AND_RISES)
    train(tmp_path / "short", _FALLS_AND_RISES, stop_at_step=4, checkpoint__best="")
    config = make_config()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules()).params
    stored = []
    for name in ("best", "short"):
        store = CheckpointStore(tmp_path / name / "checkpoints", read_only=True)
        with contextlib.closing(store):
            stored.append(jax.tree.leaves(store.restore_params(4, abstract)))
    for one, other in zip(*stored, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["best.json", "metrics.jsonl"])
def test_a_resumed_run_knows_the_best_step_by_either_file(tmp_path, lost):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=7)
    assert saved(tmp_path) == [4, 7] and best(tmp_path) == 4
    path = tmp_path / ("checkpoints" if lost == "best.json" else "") / lost
    path.write_bytes(path.read_bytes()[:5])
    assert train(tmp_path, _FALLS_AND_RISES)["best_step"] == 4
    assert saved(tmp_path) == [4, 12] and best(tmp_path) == 4


@pytest.mark.slow
def test_a_record_of_steps_that_are_computed_again_does_not_count(tmp_path):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=3)
    record_path = tmp_path / "checkpoints" / "best.json"
    record_path.write_text('{"metric": "eval/loss", "step": 4, "value": 0.0}')
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "eval/loss": 0.0}\n')
    results = train(tmp_path, {**_FALLS_AND_RISES, 4: 9.0, 3: 9.0})
    assert results["best_step"] == 10 and saved(tmp_path) == [10, 12]


@pytest.mark.slow
def test_another_number_may_count_from_a_resume_on(tmp_path):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=8)
    assert saved(tmp_path) == [4, 8]
    results = train(tmp_path, _FALLS_AND_RISES, checkpoint__best="max:eval/accuracy")
    assert results["best_step"] == 4 and record(tmp_path)["metric"] == "max:eval/accuracy"


@pytest.mark.slow
def test_without_the_knob_a_run_that_goes_on_forgets_its_best_step(tmp_path):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=8)
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=8, checkpoint__best="")
    assert best(tmp_path) == 4
    assert "best_step" not in train(tmp_path, _FALLS_AND_RISES, checkpoint__best="")
    assert saved(tmp_path) == [12]
    assert not (tmp_path / "checkpoints" / "best.json").exists()


@pytest.mark.slow
def test_the_knob_may_be_set_on_resume_and_takes_the_best_checkpoint_there_is(tmp_path):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=6, checkpoint__best="", checkpoint__keep=9)
    assert saved(tmp_path) == [5, 6]  # without the best, 4
    assert train(tmp_path, {**_FALLS_AND_RISES, 10: 3.5})["best_step"] == 6


@pytest.mark.slow
def test_a_damaged_best_checkpoint_gets_a_warning_and_the_next_is_the_best(tmp_path, capfd):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=7, checkpoint__keep_every=5)
    assert saved(tmp_path) == [4, 5, 7]
    next((tmp_path / "checkpoints" / "4" / "params" / "d").iterdir()).write_bytes(b"")
    capfd.readouterr()
    results = train(tmp_path, _FALLS_AND_RISES, checkpoint__keep_every=5)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "checkpoints/4, the best, is damaged (params/d/" in warnings[0]
    assert results["best_step"] == 10  # step 5 was not validated
    assert (tmp_path / "checkpoints" / "4.damaged").is_dir()


@pytest.mark.slow
def test_a_best_step_that_cannot_be_saved_leaves_the_one_before(tmp_path, monkeypatch, capfd):
    write_manifest = commit.write_manifest

    def full_at_4(folder, step):
        if step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_manifest(folder, step)

    monkeypatch.setattr(commit, "write_manifest", full_at_4)
    values = {2: 5.0, 4: 2.0, 6: 6.0, 8: 6.0, 10: 6.0, 12: 7.0}
    assert train(tmp_path, values, checkpoint__every=7)["best_step"] == 2
    assert "no space left" in capfd.readouterr().err
    assert saved(tmp_path) == [2, 12] and best(tmp_path) == 2


@pytest.mark.slow
def test_a_record_that_cannot_be_written_is_written_by_the_next_start(tmp_path, monkeypatch, capfd):
    def full(directory, best):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(best_lib, "write_record", full)
        assert train(tmp_path, _FALLS_AND_RISES)["best_step"] == 4
    assert "best.json was not written" in capfd.readouterr().err
    assert saved(tmp_path) == [4, 12] and not (tmp_path / "checkpoints" / "best.json").exists()
    train(tmp_path, {})
    assert best(tmp_path) == 4


@pytest.mark.slow
def test_a_number_that_no_validation_reports_ends_the_run_with_its_state_saved(tmp_path):
    told = r"no eval/los, but eval/accuracy, eval/loss: set one of these; did you mean 'eval/loss'"
    with pytest.raises(UserError, match=told):
        train(tmp_path, _FALLS_AND_RISES, checkpoint__best="eval/los")
    assert saved(tmp_path) == [2]
    assert train(tmp_path, _FALLS_AND_RISES)["best_step"] == 4
    assert steps_with(tmp_path, "eval/loss") == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_at_the_moment_stays(tmp_path, monkeypatch, capfd):
    train(tmp_path, _FALLS_AND_RISES, stop_at_step=7)
    damage = CheckpointStore.damage

    def unreadable(self, step):
        if step == 4:
            raise StorageError("cannot check checkpoint 4, which may be intact: stale handle")
        return damage(self, step)

    monkeypatch.setattr(CheckpointStore, "damage", unreadable)
    assert train(tmp_path, _FALLS_AND_RISES)["best_step"] == 4
    assert "warning: cannot check checkpoint 4" in capfd.readouterr().err
