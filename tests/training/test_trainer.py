"""Whole runs in this process: what they leave, how they resume, and what is refused."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig
from gpt2_jax.errors import UserError
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import (
    Recorder,
    lines,
    make_config,
    make_setup,
    saved_steps,
    steps_with,
)


def test_a_run_evaluates_saves_and_logs_when_it_is_due(tmp_path):
    config, recorder = make_config(), Recorder()
    results = Trainer(config, tmp_path, make_setup(config, [recorder])).run()
    assert results == {"step": 12, "eval/count": 3.0}
    assert steps_with(tmp_path, "eval/count") == [4, 8, 12] and len(recorder.seen) == 3
    written = {path.name: path.read_text() for path in (tmp_path / "samples").iterdir()}
    assert written == {"4.txt": "text 1\n", "8.txt": "text 2\n", "12.txt": "text 3\n"}
    assert saved_steps(tmp_path) == [5, 10, 12]
    losses = [line for line in lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in losses] == [1, 3, 6, 9, 12]
    assert [line["tokens"] for line in losses] == [step * 8 * 16 for step in (1, 3, 6, 9, 12)]
    # The rate of the n-th step is the schedule's n - 1: warmup of two, then ten steps of cosine.
    peak, last = 1e-3, 0.5e-3 * (1 + np.cos(np.pi * 0.9))
    assert losses[0]["learning_rate"] == pytest.approx(peak / 3)
    assert losses[1]["learning_rate"] == pytest.approx(peak)
    assert losses[-1]["learning_rate"] == pytest.approx(last, rel=1e-5)
    with_norms = [line for line in lines(tmp_path) if "grad_norm/wte" in line]
    assert [line["step"] for line in with_norms] == [6, 12]
    norms = [value for name, value in with_norms[0].items() if name != "step"]
    assert len(norms) == 4 + 2 * 12  # one for each layer of what is stacked
    assert np.linalg.norm(norms) == pytest.approx(losses[2]["grad_norm"], rel=1e-5)

    # A finished run stays as it is, even if it is asked to stop earlier.
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    for stop_at_step in (None, 3):
        again = Recorder()
        assert Trainer(config, tmp_path, make_setup(config, [again])).run(stop_at_step) == results
        assert again.seen == []
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


def test_stop_at_step_saves_and_evaluates_there(tmp_path, capfd):
    config = make_config(eval__every=0, data__path="first/place")
    recorder = Recorder()
    Trainer(config, tmp_path, make_setup(config, [recorder])).run(stop_at_step=3)
    assert saved_steps(tmp_path) == [3] and len(recorder.seen) == 1
    Trainer(config, tmp_path, make_setup(config, [recorder])).run(stop_at_step=3)
    assert "is at step 3 of 12" in capfd.readouterr().err
    assert saved_steps(tmp_path) == [3] and len(recorder.seen) == 1

    moved = make_config(eval__every=0, data__path="/moved/elsewhere")
    Trainer(moved, tmp_path, make_setup(moved)).run(stop_at_step=3)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["path"] == "/moved/elsewhere"
    both = (
        r"the data of data\.path=/moved/elsewhere \(fingerprint second\) .* trained on, "
        rf"data\.path={config.data.path} \(fingerprint first\)"
    )
    with pytest.raises(UserError, match=both):
        Trainer(moved, tmp_path, make_setup(moved, data_fingerprint="second")).run()
    with pytest.raises(UserError, match="tokenizer of the data is not the one"):
        Trainer(config, tmp_path, make_setup(config, tokenizer={"name": "char"})).run()
    assert saved_steps(tmp_path) == [3]


@pytest.mark.slow
def test_a_chosen_mesh_is_trained_on_and_may_be_another_on_resume(tmp_path):
    config = make_config(eval__every=0)
    for step, axes in ((1, (2, 4, 1)), (2, (4, 2, 1))):
        trainer = Trainer(config, tmp_path, make_setup(config, mesh=MeshConfig(*axes)))
        assert trainer.constants.mesh.axis_sizes == axes
        assert trainer.run(stop_at_step=step) == {"step": step}
        saved = json.loads((tmp_path / "config.json").read_text())
        assert set(saved["mesh"].values()) == {None}
    assert saved_steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("config_json", [True, False])
def test_how_a_run_computes_may_change_on_resume_but_not_what(tmp_path, config_json):
    config = make_config(eval__every=0)
    Trainer(config, tmp_path, make_setup(config)).run(stop_at_step=1)
    if not config_json:  # the checkpoint has the config, too
        (tmp_path / "config.json").unlink()
    for changes in ({"model__num_heads": 2}, {"compute__prng": "rbg"}, {"train__seed": 1}):
        other = make_config(eval__every=0, **changes)
        name = next(iter(changes)).replace("__", r"\.")
        with pytest.raises(UserError, match=rf"{name} .*must not change on resume"):
            Trainer(other, tmp_path, make_setup(other)).run()
    other = make_config(
        eval__every=0,
        compute__dtype="bfloat16",
        compute__remat="full",
        compute__scan_unroll=2,
        compute__loss_chunk=8,
        mesh__fsdp=2,
    )
    assert Trainer(other, tmp_path, make_setup(other)).run(stop_at_step=1) == {"step": 1}


def test_init_from_starts_from_the_parameters_that_are_read(tmp_path):
    config, recorder = make_config(train__init_from="elsewhere", eval__every=1), Recorder()
    names = []

    def read_params(name, abstract):
        names.append(name)
        return jax.tree.map(
            lambda leaf: jax.device_put(np.full(leaf.shape, 0.01, np.float32), leaf.sharding),
            abstract,
        )

    setup = make_setup(config, [recorder], read_params=read_params)
    Trainer(config, tmp_path, setup).run(stop_at_step=1)
    assert names == ["elsewhere"]
    # One update moves each number by at most the learning rate, and by far less through decay.
    moved = [np.abs(leaf - 0.01).max() for leaf in jax.tree.leaves(recorder.seen[0])]
    assert 0 < max(moved) < 1.1e-3
    # A run that has a checkpoint of its own resumes from it.
    Trainer(config, tmp_path, setup).run(stop_at_step=2)
    assert names == ["elsewhere"]


def test_the_trainer_refuses_before_it_touches_anything(tmp_path):
    config = make_config(train__batch_size=12)
    with pytest.raises(UserError, match=r"batch_size=12 .*try 8 or 16"):
        Trainer(config, tmp_path / "run", make_setup(config))
    assert not (tmp_path / "run").exists()
