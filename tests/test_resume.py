"""A run that was interrupted, by whatever, ends as the one that was not."""

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
from gpt2_jax.cli.main import main
from gpt2_jax.config import load_config
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.formats.load import abstract_params
from tests.runs import NO_SAMPLE, arrays, identical, losses, make_lab, once, rows, start, train


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a config, its data, and what has been compiled for it."""
    return make_lab(tmp_path_factory, "resume", other="red fish blue fish ")


@pytest.fixture(scope="module")
def whole(lab):
    """The run that nothing interrupted; tests leave it as it is."""
    return once(lab / "whole", lambda workdir: train(lab, workdir))


@pytest.fixture(scope="module")
def half(lab, whole):
    """A run that stopped at half its steps; tests go on with copies of it."""
    return once(
        lab / "half", lambda workdir: train(lab, workdir, "--stop_at_step", "10", NO_SAMPLE)
    )


def test_half_a_run_restored_in_a_new_process_equals_the_whole_to_the_bit(lab, whole, half):
    workdir = shutil.copytree(half, lab / "resumed")
    assert len(losses(workdir)) == 10
    # Torn and later rows, as a killed process leaves them, are dropped.
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "loss": 0.0}\n{"step": 1')
    train(lab, workdir)
    assert losses(workdir) == losses(whole)
    assert identical(arrays(workdir), arrays(whole))
    sample = (whole / "samples" / "20.txt").read_text()
    assert sample.strip() and (workdir / "samples" / "20.txt").read_text() == sample
    evaluations = [
        {key: row[key] for key in row if key.startswith("eval/")}
        for path in (whole, workdir)
        for row in rows(path)
        if row["step"] == 20 and "eval/loss" in row
    ]
    assert len(evaluations) == 2 and evaluations[0] == evaluations[1]


def test_a_run_interrupted_by_a_signal_saves_and_goes_on_to_the_same_end(lab, whole):
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
    assert not any("eval/loss" in row for row in rows(workdir))
    train(lab, workdir, NO_SAMPLE)
    assert losses(workdir) == losses(whole)
    assert identical(arrays(workdir), arrays(whole))


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_devices_and_another_mesh(lab, whole, half):
    workdir = shutil.copytree(half, lab / "moved")
    train(lab, workdir, "--config.mesh.data=1", "--config.mesh.fsdp=2", NO_SAMPLE, devices=2)
    ours, expected = np.array(losses(workdir)), np.array(losses(whole))
    assert (ours[:10] == expected[:10]).all()
    error = np.abs(ours / expected - 1).max()
    print(f"8 -> 2 devices after half the run: {error:.1e} relative")
    assert error < 1e-5


def run_here(lab, workdir, *flags):
    """The same command in this process, for what ends before anything is compiled."""
    return main(["train", "--config", str(lab / "config.py"), "--workdir", str(workdir), *flags])


def test_what_would_not_continue_a_run_is_refused_by_name(lab, whole, capfd):
    workdir = shutil.copytree(whole, lab / "refused")
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    refusals = {
        ("--config.model.dropout=0.2", "--config.train.seed=1"): ["model.dropout", "train.seed"],
        ("--config.train.total_steps=19",): ["train.total_steps", "20", "19"],
        (f"--config.data.path={lab / 'other'}",): ["data.path"],
    }
    for flags, names in refusals.items():
        assert run_here(lab, workdir, *flags) == 2
        errors = capfd.readouterr().err
        assert all(name in errors for name in names), errors
        assert len(errors.strip().splitlines()) == 1, errors
    assert run_here(lab, workdir) == 0
    assert "step 20 of 20" in capfd.readouterr().err
    # Neither a refusal nor starting a finished run again changes anything.
    assert {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()} == before


def test_other_data_under_a_run_is_refused(lab, whole, capfd):
    workdir = shutil.copytree(whole, lab / "changed")
    # As if the folder the run names had other shards now.
    config = workdir / "config.json"
    config.write_text(config.read_text().replace(str(lab / "data"), str(lab / "other")))
    assert run_here(lab, workdir, f"--config.data.path={lab / 'other'}") == 2
    errors = capfd.readouterr().err
    assert "shards in data.path" in errors and len(errors.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_new_run_starts_from_the_parameters_of_another(lab, whole):
    workdir = lab / "from"
    train(lab, workdir, f"--config.train.init_from={whole}", "--stop_at_step", "1", NO_SAMPLE)
    pairs = zip(arrays(workdir, 1), arrays(whole), strict=True)
    params = [np.abs(a - b).max() for a, b in pairs if a.ndim][:16]
    # The first update, of a learning rate of 7.5e-4, is all that is between them.
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
        # The decay of the weights makes them a hundred million times larger in every step.
        "--config.schedule.learning_rate=1e9",
        "--config.schedule.warmup_steps=0",
        "--config.train.max_bad_steps=3",
    )
    errors = train(lab, lab / "bad", *flags, status=76)
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and "3 steps in a row" in last
    # The file that the error names says which text the step has read.
    record = json.loads(Path(last.rpartition("see ")[2]).read_text())
    tokens = open_tokens(lab / "data", "train")
    texts = []
    for folder, first in record["rows"]:
        assert folder == str(lab / "data")
        texts.append(bytes(tokens.read(first, record["row_tokens"]).astype(np.uint8)).decode())
    assert len(texts) == 8 and all(len(text) == 17 and "fish" in text for text in texts)
