"""Tests that a run whose shards change ends with a line instead of SIGBUS, in a real process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from tests.runs import CONFIG, NO_SAMPLE, start, train


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a config of two sets, one prepared and one in nanoGPT's format, of several pages."""
    folder = tmp_path_factory.mktemp("changed")
    prepare([Document("a", "one fish two fish " * 2000)], "byte", folder / "prepared")
    (folder / "nanogpt").mkdir()
    for split in ("train", "val"):
        np.tile(np.arange(256, dtype="<u2"), 100).tofile(folder / "nanogpt" / f"{split}.bin")
    data = f"c.data.mixture = '{folder}/prepared=1,{folder}/nanogpt=1'"
    config = CONFIG.replace("c.data.path = {data!r}", data).replace("= 20\n", "= 1000000\n")
    config = config.replace("num_layers = 2", "num_layers = 1").replace("every = 8", "every = 2")
    (folder / "config.py").write_text(config)
    return folder


def _end_of_a_run(lab: Path, workdir: Path, shard: Path, damage: Callable[[Path], None]) -> str:
    """Returns the last line of a run whose shard is changed; the shard is restored afterwards."""
    content, metrics = shard.read_bytes(), workdir / "metrics.jsonl"
    process = start(lab, workdir, NO_SAMPLE, devices=1)
    deadline = time.monotonic() + 200
    # More than two steps, so that there is a checkpoint.
    while not (metrics.exists() and metrics.read_bytes().count(b'"loss"') >= 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    damage(shard)
    _, errors = process.communicate(timeout=200)
    shard.write_bytes(content)
    assert process.returncode == 2, errors
    return errors.splitlines()[-1]


@pytest.mark.slow
def test_a_shard_that_is_cut_off_under_a_run_ends_it_with_a_line(lab: Path) -> None:
    shard = lab / "prepared" / "train_000000.bin"
    message = _end_of_a_run(lab, lab / "cut_off", shard, lambda path: os.truncate(path, 3000))
    assert message == (
        f"error: {shard}, whose tokens are being read, has changed: it had 65,824 bytes and has "
        "3,000; restore it and run the same command again"
    )


@pytest.mark.slow
def test_with_the_shard_back_in_place_the_same_command_goes_on(lab: Path) -> None:
    shard, workdir = lab / "nanogpt" / "train.bin", lab / "removed"
    assert " is missing; restore it" in _end_of_a_run(lab, workdir, shard, Path.unlink)
    done = max(int(folder.name) for folder in (workdir / "checkpoints").glob("*[0-9]"))
    flags = ("--stop_at_step", str(done + 1), "--config.eval.batches=0", NO_SAMPLE)
    assert f"from step {done} to {done + 1}" in train(lab, workdir, *flags, devices=1)
