"""The config of a small run of a lab, and what a command prints."""

from __future__ import annotations

import json

from gpt2_jax.cli.main import main
from gpt2_jax.config import load_config

FLAGS = ("train.total_steps=4", "schedule.warmup_steps=1", "eval.sample_tokens=0")


def make_config(lab, *flags):
    return load_config(lab / "config.py", [*FLAGS, *flags])


def read_json(capsys, *words):
    """Returns the document that a command prints."""
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)
