"""Checks that a command refuses a mistake of its user: status 2, one line, and no changed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.cli.main import main

CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 2
    c.model.num_heads = 4
    c.model.d_model = 32
    c.model.context_length = 32
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.compute.scan_unroll = 2
    c.data.path = "data"
    c.data.tokenizer = "byte"
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 2
    return c
"""
TRAIN = ("train", "--config", "tiny.py", "--workdir", "new")


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Returns the bytes of every file, and every folder, by path."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(house: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the only line of a command that was refused and changed nothing."""
    before = _contents(house)
    status = main(words)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert not out
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert len(err) <= 400, err
    assert _contents(house) == before
    return err
