"""A tiny run in this process, which the tests of the trainer's parts share."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.data.loader import TrainLoader
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.training.run import Setup
from gpt2_jax.training.trainer import Trainer

TOKENS = TokenArray([(np.arange(2000) * 7 % 61).astype(np.uint16)])


def make_config(**changes):
    """The config of a run of 12 steps; `section__name=value` changes a knob."""
    sections = {
        "model": {
            "num_layers": 2,
            "num_heads": 4,
            "d_model": 32,
            "context_length": 16,
            "vocab_size": 61,
            "vocab_multiple": 8,
        },
        "compute": {"dtype": "float32", "loss_chunk": 0},
        "schedule": {"learning_rate": 1e-3, "min_learning_rate": 0.0, "warmup_steps": 2},
        "train": {"batch_size": 8, "total_steps": 12},
        "checkpoint": {"every": 5, "keep": 9},
        "eval": {"every": 4},
        "log": {"every": 3, "tensorboard": False, "norms_every": 6, "goodput_every": 0},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        sections.setdefault(section, {})[name] = value
    return from_dict(sections)


class Recorder:
    """An evaluator that keeps the parameters of each call, and yields a number and a text."""

    def __init__(self):
        self.seen = []

    def __call__(self, params, tick):
        tick()
        self.seen.append(jax.device_get(params))
        yield "eval/count", float(len(self.seen))
        yield "sample", f"text {len(self.seen)}"


def make_setup(config, evaluators=(), **changes):
    source = TrainLoader(
        TOKENS,
        batch_size=config.train.batch_size,
        context_length=16,
        seed=config.train.seed,
        folder="data/tokens",
    )
    values = {
        "source": source,
        "origins": source.origins,
        "make_evaluators": lambda abstract, mesh, rules: evaluators,
        "tokenizer": {"name": "byte"},
        "data_fingerprint": "first",
        "read_params": lambda name, abstract: pytest.fail("no model is to be read"),
    }
    return Setup(**(values | changes))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps_with(workdir, name):
    """The steps of the lines that have a number of this name."""
    return [line["step"] for line in lines(workdir) if name in line]


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


class Clock:
    """A clock that a test moves on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def seen_whole_and_halved(config, folder, **changes):
    """Trains in `folder`/whole at once and in `folder`/halves with a stop after step 3.

    Returns what a `Recorder` saw in each of the two; `changes` are of the setup.
    """
    seen = []
    for name, stops in (("whole", (None,)), ("halves", (3, None))):
        recorder = Recorder()
        for stop in stops:
            Trainer(config, folder / name, make_setup(config, [recorder], **changes)).run(stop)
        seen.append(recorder.seen)
    return seen
