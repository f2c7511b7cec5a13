"""A run that was interrupted, however it was, ends like one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import load_config
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.model.build import abstract_params
from tests.runs import (
    NO_SAMPLE,
    arrays,
    identical,
    lines,
    losses,
    make_lab,
    once,
    start,
    train,
    train_here,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a config and its data."""
    return make_lab(tmp_path_factory, "resume", other="red fish blue fish ")


@pytest.fixture(scope="module")
def whole(lab):
    """The run that nothing interrupted; tests do not change it."""

    def make(workdir):
        assert train_here(lab, workdir) == 0

    return once(lab / "whole", make)


@pytest.fixture(scope="module")
def half(lab, whole):
    """A run that stopped after half its steps; tests resume copies of it."""

    def make(workdir):
        assert train_here(lab, workdir, "--stop_at_step", "10", NO_SAMPLE) == 0

    return once(lab / "half", make)


@pytest.mark.slow
def test_half_a_run_restored_in_a_new_process_equals_the_whole_to_the_bit(lab, whole, half):
    workdir = shutil.copytree(half, lab / "resumed")
    assert len(losses(workdir)) == 10
    # Unfinished and later lines, as a killed process leaves them, are dropped.
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "loss": 0.0}\n{"step": 1')
    train(lab, workdir)
    assert losses(workdir) == losses(whole)
    assert identical(arrays(workdir), arrays(whole))
    sample = (whole / "samples" / "20.txt").read_text()
    assert sample.strip() and (workdir / "samples" / "20.txt").read_text() == sample
    evaluations = [
        {name: line[name] for name in line if name.startswith("eval/")}
        for path in (whole, workdir)
        for line in lines(path)
        if line["step"] == 20 and "eval/loss" in line
    ]
    assert len(evaluations) == 2 and evaluations[0] == evaluations[1]


@pytest.mark.slow
def test_a_run_interrupted_by_a_signal_saves_and_resumes_to_the_same_end(lab, whole):
    workdir = lab / "signal"
    process = start(lab, workdir)
    deadline = time.monotonic() + 100
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 75, errors
    assert "SIGINT: finishing the step and saving" in errors
    stopped = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 2 <= stopped < 20 and f"saved at step {stopped} of 20" in errors
    assert len(losses(workdir)) == stopped
    assert not any("eval/loss" in line for line in lines(workdir))
    assert train_here(lab, workdir, NO_SAMPLE) == 0
    assert losses(workdir) == losses(whole)
    assert identical(arrays(workdir), arrays(whole))


@pytest.mark.slow
def test_a_run_resumes_with_fewer_devices_and_another_mesh(lab, whole, half):
    workdir = shutil.copytree(half, lab / "moved")
    train(lab, workdir, "--config.mesh.data=1", "--config.mesh.fsdp=2", NO_SAMPLE, devices=2)
    ours, expected = np.array(losses(workdir)), np.array(losses(whole))
    assert (ours[:10] == expected[:10]).all()
    error = np.abs(ours / expected - 1).max()
    print(f"8 -> 2 devices after half the run: {error:.1e} relative")
    assert error < 1e-5


def test_what_would_not_continue_a_run_is_refused_by_name(lab, whole, capfd):
    workdir = shutil.copytree(whole, lab / "refused")
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    refusals = {
        ("--config.model.dropout=0.2", "--config.train.seed=1"): ["model.dropout", "train.seed"],
        ("--config.train.total_steps=19",): ["train.total_steps", "20", "19"],
        (f"--config.data.path={lab / 'other'}",): ["data.path"],
    }
    for flags, names in refusals.items():
        assert train_here(lab, workdir, *flags) == 2
        errors = capfd.readouterr().err
        assert all(name in errors for name in names), errors
        assert len(errors.strip().splitlines()) == 1, errors
    assert train_here(lab, workdir) == 0
    assert "step 20 of 20" in capfd.readouterr().err
    # Neither a refusal nor starting a finished run again changes anything.
    assert {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()} == before


def test_other_data_under_a_run_is_refused(lab, whole, capfd):
    workdir = shutil.copytree(whole, lab / "changed")
    # As if the folder that the run names had other shards by now.
    config = workdir / "config.json"
    config.write_text(config.read_text().replace(str(lab / "data"), str(lab / "other")))
    assert train_here(lab, workdir, f"--config.data.path={lab / 'other'}") == 2
    errors = capfd.readouterr().err
    assert "the data of data.path" in errors and len(errors.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_new_run_starts_from_the_parameters_of_another(lab, whole):
    workdir = lab / "from"
    train(lab, workdir, f"--config.train.init_from={whole}", "--stop_at_step", "1", NO_SAMPLE)
    pairs = zip(arrays(workdir, 1), arrays(whole), strict=True)
    params = [np.abs(a - b).max() for a, b in pairs if a.ndim][:16]
    # Only the first update, with a learning rate of 7.5e-4, separates them.
    assert 0 < max(params) < 1.2 * 7.5e-4
    assert losses(workdir)[0] < losses(whole)[10]


def test_parameters_are_read_alone(whole):
    config = load_config(whole / ".." / "config.py").model
    store = CheckpointStore(whole / "checkpoints", read_only=True)
    try:
        assert store.steps() == [20, 16, 8]
        params = store.restore_params(20, abstract_params(config))
    finally:
        store.close()
    alone = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    assert identical(alone, arrays(whole)[: len(alone)])


@pytest.mark.slow
def test_numbers_that_go_bad_end_with_status_76(lab):
    flags = (
        # Weight decay makes the weights a hundred million times larger in every step.
        "--config.schedule.learning_rate=1e9",
        "--config.schedule.warmup_steps=0",
        "--config.train.max_bad_steps=3",
    )
    errors = train(lab, lab / "bad", *flags, status=76)
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and "3 steps in a row" in last
    # The file in the error message says which text the step has read.
    record = json.loads(Path(last.rpartition("see ")[2]).read_text())
    tokens = open_tokens(lab / "data", "train")
    texts = []
    for folder, first in record["rows"]:
        assert folder == str(lab / "data")
        texts.append(bytes(tokens.read(first, record["row_tokens"]).astype(np.uint8)).decode())
    assert len(texts) == 8 and all(len(text) == 17 and "fish" in text for text in texts)
