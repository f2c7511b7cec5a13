"""Runs of 12 steps whose validations give numbers that a test chooses."""

from __future__ import annotations

import json
from typing import ClassVar

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.training import trainer
from gpt2_jax.training.evaluation import Evaluation
from tests.training.tiny import make_config, make_setup


class _Scored(Evaluation):
    """A validation that gives the chosen number of its step, also if a restart repeats it."""

    values: ClassVar = {}

    def __call__(self, step, state):
        value = self.values.get(step, 99.0)
        numbers = [("eval/loss", value), ("eval/accuracy", -value)]
        self._evaluators = [lambda params, tick: iter(numbers)]
        super().__call__(step, state)


def train(workdir, values, stop_at_step=None, **changes):
    """Trains with validations after every second step, of which `values` has {step: loss}."""
    knobs = {"checkpoint__best": "eval/loss", "checkpoint__keep": 1, "eval__every": 2} | changes
    config, original = make_config(**knobs), trainer.Evaluation
    trainer.Evaluation = type("_Chosen", (_Scored,), {"values": values})
    try:
        return trainer.Trainer(config, workdir, make_setup(config)).run(stop_at_step)
    finally:
        trainer.Evaluation = original


def saved(workdir):
    return sorted(CheckpointStore(workdir / "checkpoints", read_only=True).steps())


def record(workdir):
    return json.loads((workdir / "checkpoints" / "best.json").read_text())


def best(workdir):
    """The step of the record."""
    return record(workdir)["step"]
