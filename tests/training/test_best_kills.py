"""A run that is killed at any moment and started again has the best step of one that was not.

Steps cost nothing here: a checkpoint is an empty folder, and a validation gives a chosen number.
What decides, records and removes is what runs use.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import types

import jax.numpy as jnp
import pytest

from gpt2_jax.checkpoint import pruning
from gpt2_jax.checkpoint.best import read_record
from gpt2_jax.checkpoint.folders import step_folders
from gpt2_jax.config import from_dict
from gpt2_jax.training import best as best_lib
from gpt2_jax.training.best import BestStep
from gpt2_jax.training.metrics_file import _drop_lines_after, last_evaluation
from gpt2_jax.training.saving import Saver
from gpt2_jax.training.state import TrainState

_STATE = TrainState(*(jnp.int32(0),) * 5)


class Killed(BaseException):
    """Ends the simulated process, of which nothing more is executed."""


class Moments:
    """Counts the moments at which something changes on the disk, and kills before a chosen one."""

    def __init__(self, monkeypatch):
        self.count, self.kill_at = 0, -1
        for owner, name in (
            (best_lib, "write_record"),
            (pruning, "mark_half_written"),
            (pruning, "remove_tree"),
        ):
            monkeypatch.setattr(owner, name, self._before(getattr(owner, name)))

    def pass_one(self):
        self.count += 1
        if self.count == self.kill_at:
            raise Killed

    def _before(self, function):
        def call(*args):
            self.pass_one()
            return function(*args)

        return call


class Store:
    """Commits a save, an empty folder, when the run waits for it or asks for the second time."""

    def __init__(self, directory, moments):
        self.directory, self._moments = directory, moments
        self._pending, self._asked = None, 0

    def steps(self):
        folders = step_folders(self.directory, committed=True)
        return sorted((int(folder.name) for folder in folders), reverse=True)

    def save(self, step, *arrays):
        if step not in self.steps():
            self._moments.pass_one()
            self._pending, self._asked = step, 0

    def saving(self):
        self._asked += 1
        return self._asked < 2

    def wait(self):
        if self._pending is not None:
            self._moments.pass_one()
            (self.directory / str(self._pending)).mkdir()
            self._pending = None

    def damage(self, step):
        return None


def live(folder, config, values, moments):
    """Lives from a start to the end of the run, or until it is killed; returns the last step."""
    directory = folder / "checkpoints"
    directory.mkdir(parents=True, exist_ok=True)
    for half_written in step_folders(directory, committed=False):
        shutil.rmtree(half_written)
    store = Store(directory, moments)
    setup = types.SimpleNamespace(tokenizer={}, data_fingerprint="")
    run = types.SimpleNamespace(config=config, workdir=folder, setup=setup, base=None)
    start, total = max(store.steps(), default=0), config.train.total_steps
    _drop_lines_after(folder / "metrics.jsonl", start)
    best = BestStep(run, store, start)
    saver = Saver(run, store, pytest.fail, on_saved=lambda step: best.settle())
    evaluation = types.SimpleNamespace(results={})
    decide = best.after_validation(evaluation, saver)

    def validate(step):
        evaluation.results = {"eval/x": values[step]}
        moments.pass_one()
        number = values[step] if math.isfinite(values[step]) else None
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "eval/x": number}) + "\n")
        decide(step, _STATE)

    def due(every, step):
        return step % every == 0 or step == total

    if start and due(config.eval.every, start) and last_evaluation(folder)[1] < start:
        validate(start)
    step = start
    while step < total and not best.ended:
        step += 1
        saver.poll(step, {})
        if due(config.checkpoint.every, step):
            saver.save(step, _STATE)
        if due(config.eval.every, step):
            validate(step)
    saver.save_if_new(step, _STATE)
    saver.finish()
    return step


def outcome(folder):
    """The best step, all steps with a checkpoint, and whether anything else is left."""
    directory = folder / "checkpoints"
    names = {path.name for path in directory.iterdir()} - {"best.json"}
    assert all(name.isdigit() for name in names)
    return read_record(directory), sorted(map(int, names)), last_evaluation(folder)[1]


@pytest.mark.parametrize(
    ("save", "validate", "keep", "keep_every", "patience"),
    [
        (4, 4, 1, None, 0),
        (5, 1, 1, None, 4),
        pytest.param(5, 2, 1, None, 0, marks=pytest.mark.slow),
        pytest.param(2, 3, 2, 8, 0, marks=pytest.mark.slow),
    ],
)
def test_kills_at_any_moment_change_nothing(
    tmp_path, monkeypatch, save, validate, keep, keep_every, patience
):
    rng = random.Random(save)
    choices = [1.0, 2.0, 3.0, 4.0, 5.0, math.nan]
    values = {step: rng.choice(choices[max(0, 4 - step // 3) :]) for step in range(1, 17)} | {
        1: 6.0
    }
    config = from_dict(
        {
            "train": {"total_steps": 16, "patience": patience},
            "schedule": {"warmup_steps": 0},
            "eval": {"every": validate},
            "checkpoint": {
                "every": save,
                "keep": keep,
                "keep_every": keep_every,
                "best": "max:eval/x" if keep > 1 else "eval/x",
            },
        }
    )
    moments = Moments(monkeypatch)
    last = live(tmp_path / "whole", config, values, moments)
    expected, count = outcome(tmp_path / "whole"), moments.count
    assert expected[0] is not None and expected[0].step in expected[1] and last in expected[1]
    assert count > 10
    for kill_at in range(1, count + 1):
        folder = tmp_path / str(kill_at)
        moments.count, moments.kill_at = 0, kill_at
        with pytest.raises(Killed):
            live(folder, config, values, moments)
        moments.count, moments.kill_at = 0, rng.randint(1, 9)  # and perhaps once more
        try:
            live(folder, config, values, moments)
        except Killed:
            if rng.random() < 0.3:
                (folder / "checkpoints" / "best.json").unlink(missing_ok=True)
            moments.kill_at = -1
            assert live(folder, config, values, moments) == last
        assert outcome(folder) == expected, f"killed before moment {kill_at}"
