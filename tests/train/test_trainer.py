from __future__ import annotations

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import from_dict
from gpt2_jax.data.loader import TrainLoader
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import NumbersWentBad, Preempted, StorageError, UserError
from gpt2_jax.train import trainer
from gpt2_jax.train.run import Setup
from gpt2_jax.train.state import without_params
from gpt2_jax.train.trainer import Trainer
from gpt2_jax.train.watchdog import Watchdog

_TOKENS = TokenArray([(np.arange(2000) * 7 % 61).astype(np.uint16)])


def make_config(**changes):
    sections = {
        "model": {
            "num_layers": 2,
            "num_heads": 4,
            "d_model": 32,
            "context_length": 16,
            "vocab_size": 61,
            "vocab_multiple": 8,
            "dtype": "float32",
            "loss_chunk": 0,
        },
        "schedule": {"learning_rate": 1e-3, "min_learning_rate": 0.0, "warmup_steps": 2},
        "train": {"batch_size": 8, "total_steps": 12},
        "checkpoint": {"every": 5, "keep": 9},
        "eval": {"every": 4},
        "log": {"every": 3, "tensorboard": False, "norms_every": 6},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        sections[section][name] = value
    return from_dict(sections)


class Recorder:
    """An evaluator that counts how often it was asked, and says so in a number and a text."""

    def __init__(self):
        self.seen = []

    def __call__(self, params, tick):
        tick()
        self.seen.append(jax.device_get(params))
        yield "eval/count", float(len(self.seen))
        yield "sample", f"text {len(self.seen)}"


def make_setup(config, evaluators=(), **changes):
    source = TrainLoader(
        _TOKENS,
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
        "data_fingerprint": "one",
        "read_params": lambda name, abstract: pytest.fail("reads no model"),
    }
    return Setup(**(values | changes))


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_a_run_evaluates_saves_and_logs_when_it_is_due(tmp_path):
    config, recorder = make_config(), Recorder()
    results = Trainer(config, tmp_path, make_setup(config, [recorder])).run()
    assert results == {"step": 12, "eval/count": 3.0}
    evaluated = [row["step"] for row in rows(tmp_path) if "eval/count" in row]
    assert evaluated == [4, 8, 12] and len(recorder.seen) == 3
    written = {path.name: path.read_text() for path in (tmp_path / "samples").iterdir()}
    assert written == {"4.txt": "text 1\n", "8.txt": "text 2\n", "12.txt": "text 3\n"}
    assert saved(tmp_path) == [5, 10, 12]
    losses = [row for row in rows(tmp_path) if "loss" in row]
    assert [row["step"] for row in losses] == [1, 3, 6, 9, 12]
    assert [row["tokens"] for row in losses] == [step * 8 * 16 for step in (1, 3, 6, 9, 12)]
    # The n-th step's rate is the schedule's n - 1: warmup of two, then ten steps of cosine.
    peak, ends = 1e-3, 0.5e-3 * (1 + np.cos(np.pi * 0.9))
    assert losses[0]["learning_rate"] == pytest.approx(peak / 3)
    assert losses[1]["learning_rate"] == pytest.approx(peak)
    assert losses[-1]["learning_rate"] == pytest.approx(ends, rel=1e-5)
    with_norms = [row for row in losses if any(key.startswith("grad_norm/") for key in row)]
    assert [row["step"] for row in with_norms] == [6, 12]
    norms = [value for key, value in with_norms[0].items() if key.startswith("grad_norm/")]
    assert len(norms) == 4 + 2 * 12  # once a layer for what is stacked
    assert np.linalg.norm(norms) == pytest.approx(with_norms[0]["grad_norm"], rel=1e-5)

    # A finished run is left as it is, even by a run that would stop earlier.
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    for stop_at_step in (None, 3):
        again = Recorder()
        assert Trainer(config, tmp_path, make_setup(config, [again])).run(stop_at_step) == results
        assert again.seen == []
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


def test_the_watchdog_hears_of_all_that_a_run_does(tmp_path, monkeypatch):
    told = []

    class Listener(Watchdog):
        def doing(self, what):
            told.append(what)
            super().doing(what)

    monkeypatch.setattr(trainer, "Watchdog", Listener)
    config = make_config(eval__every=2, checkpoint__every=2)
    Trainer(config, tmp_path, make_setup(config, [Recorder()])).run(stop_at_step=3)
    after = ["", ", after eval/count", ", after sample"]

    def ends_with_all(step):
        validation = [f"the validation at step {step}{result}" for result in after]
        return [f"step {step}", f"the save of step {step}", *validation]

    assert told[:4] == ["its start", "compiling", "step 1", "step 2"]  # 2 is begun, then
    assert told[4:] == ["step 1", *ends_with_all(2), "step 3", *ends_with_all(3)]


def test_a_save_holds_its_own_step_though_training_goes_on_meanwhile(tmp_path):
    # Wide enough that writing takes longer than the steps that overwrite the donated buffers.
    config = make_config(model__d_model=256, checkpoint__every=4)
    copies = []

    def evaluator(params, tick):
        copies.append(jax.tree.map(np.array, params))
        yield "eval/count", float(len(copies))

    run = Trainer(config, tmp_path, make_setup(config, [evaluator]))
    run.run()
    assert saved(tmp_path) == [4, 8, 12] and len(copies) == 3
    store = CheckpointStore(tmp_path / "checkpoints", read_only=True)
    for step, expected in zip((4, 8, 12), copies, strict=True):
        found = store.restore_params(step, run.fixed.abstract.params)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    store.close()


def test_checkpoints_that_are_gone_are_not_started_over_from(tmp_path):
    config = make_config()
    Trainer(config, tmp_path, make_setup(config, [Recorder()])).run(stop_at_step=7)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.rename(tmp_path / "elsewhere")
    logged = (tmp_path / "metrics.jsonl").read_bytes()
    for make in (lambda: None, checkpoints.mkdir):
        make()
        with pytest.raises(StorageError, match=r"has saved step 7, but .* put it back, or remove"):
            Trainer(config, tmp_path, make_setup(config, [Recorder()])).run()
    assert (tmp_path / "metrics.jsonl").read_bytes() == logged
    checkpoints.rmdir()
    (tmp_path / "elsewhere").rename(checkpoints)
    results = Trainer(config, tmp_path, make_setup(config, [Recorder()])).run()
    assert results["step"] == 12 and (tmp_path / "saved_step").read_text() == "12\n"
    shutil.rmtree(checkpoints)
    (tmp_path / "saved_step").unlink()
    results = Trainer(config, tmp_path, make_setup(config, [Recorder()])).run(stop_at_step=1)
    assert results["step"] == 1


def test_stop_at_step_saves_and_evaluates_there(tmp_path, capfd):
    config, recorder = make_config(eval__every=0), Recorder()
    Trainer(config, tmp_path, make_setup(config, [recorder])).run(stop_at_step=3)
    assert saved(tmp_path) == [3] and len(recorder.seen) == 1
    Trainer(config, tmp_path, make_setup(config, [recorder])).run(stop_at_step=3)
    assert "is at step 3 of 12" in capfd.readouterr().err
    assert saved(tmp_path) == [3] and len(recorder.seen) == 1

    with pytest.raises(UserError, match=r"shards in data\.path"):
        Trainer(config, tmp_path, make_setup(config, data_fingerprint="two")).run()
    assert saved(tmp_path) == [3]


def test_a_validation_missed_by_a_stop_is_made_up_for(tmp_path, monkeypatch):
    config, recorder = make_config(eval__every=4), Recorder()
    setup = make_setup(config, [recorder])
    # Asked after every step and once in a validation: steps 1 to 4; those of step 4 and 8, 5 to 12.
    for questions, asked_at in ((4, 4), (10, 12)):
        answers = iter([False] * (questions - 1) + [True])
        stop = types.SimpleNamespace(requested=lambda a=answers: next(a), close=lambda: None)
        with monkeypatch.context() as patched:
            patched.setattr(trainer, "StopRequest", lambda stop=stop: stop)
            with pytest.raises(Preempted, match=f"saved at step {asked_at} of 12"):
                Trainer(config, tmp_path, setup).run()
        assert saved(tmp_path)[-1] == asked_at
    assert Trainer(config, tmp_path, setup).run() == {"step": 12, "eval/count": 3.0}
    evaluated = [row["step"] for row in rows(tmp_path) if "eval/count" in row]
    assert evaluated == [4, 8, 12] and len(recorder.seen) == 3


def test_a_stop_during_a_validation_saves_and_the_validation_is_made_up_for(tmp_path, monkeypatch):
    config, recorder = make_config(eval__every=4), Recorder()  # step 4 is not due to be saved
    asked = []

    def told_meanwhile(params, tick):
        tick()
        asked.append(True)
        tick()
        pytest.fail("goes on when it was told to stop")
        yield

    stop = types.SimpleNamespace(requested=lambda: bool(asked), close=lambda: None)
    monkeypatch.setattr(trainer, "StopRequest", lambda: stop)
    for _ in ("the validation of step 4", "the same on the next start"):
        asked.clear()
        with pytest.raises(Preempted, match="saved at step 4 of 12"):
            Trainer(config, tmp_path, make_setup(config, [told_meanwhile])).run()
        assert saved(tmp_path) == [4]
    asked.clear()
    results = Trainer(config, tmp_path, make_setup(config, [recorder])).run()
    assert results == {"step": 12, "eval/count": 3.0}
    assert [row["step"] for row in rows(tmp_path) if "eval/count" in row] == [4, 8, 12]


class BadFrom:
    """A source whose batches from `step` on have losses that are not numbers."""

    def __init__(self, source, step):
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self._source, self._step = source, step

    def rows(self, step, row_indices):
        batch = self._source.rows(step, row_indices)
        return batch if step < self._step else batch._replace(weights=batch.weights * np.nan)


def test_numbers_that_stay_bad_end_the_run_and_leave_the_parameters(tmp_path):
    config = make_config(train__max_bad_steps=3, checkpoint__every=1, eval__every=1)
    recorder = Recorder()
    setup = make_setup(config, [recorder])
    setup = dataclasses.replace(setup, source=BadFrom(setup.source, 2))
    with pytest.raises(NumbersWentBad, match="3 steps in a row, up to step 5") as caught:
        Trainer(config, tmp_path, setup).run()
    assert caught.value.exit_status == 76
    assert "\n" not in str(caught.value) and "learning_rate" in str(caught.value)
    first, *others = (jax.tree.leaves(params) for params in recorder.seen)
    assert len(others) == 3
    assert all(map(np.array_equal, others[0], others[2]))
    assert not all(map(np.array_equal, first, others[0]))
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert losses[0] > 0 and losses[-1] is None
    # Each of them left a file, and the error names the last.
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "bad_steps").iterdir()}
    assert files.keys() == {"3.json", "4.json", "5.json"}
    assert str(caught.value).endswith(f"see {tmp_path / 'bad_steps' / '5.json'}")
    last = files["5.json"]
    assert (last["step"], last["loss"], last["grad_norm"]) == (5, "nan", "nan")
    assert set(last["grad_norms"].values()) == {"nan"} and len(last["grad_norms"]) == 4 + 2 * 12
    assert last["learning_rate"] == pytest.approx(1e-3)  # the warmup of two is over
    # What the step has read can be read again.
    batch = setup.source.rows(last["batch"], range(8))
    for row, (folder, first) in enumerate(last["rows"]):
        window = _TOKENS.read(first, last["row_tokens"])
        assert folder == "data/tokens"
        assert np.array_equal(window, [*batch.inputs[row], batch.targets[row, -1]])
    assert len(last["rows"]) == 8


def test_a_run_that_starts_again_goes_on_counting_bad_steps(tmp_path, capfd):
    config = make_config(train__max_bad_steps=5, eval__every=0)
    setup = make_setup(config)
    setup = dataclasses.replace(setup, source=BadFrom(setup.source, 2))
    Trainer(config, tmp_path, setup).run(stop_at_step=4)
    assert f"update skipped: see {tmp_path / 'bad_steps' / '4.json'}" in capfd.readouterr().err
    with pytest.raises(NumbersWentBad, match="5 steps in a row, up to step 7"):
        Trainer(config, tmp_path, setup).run()


class Garbled:
    """A source whose batches of these numbers have targets that do not follow from their inputs."""

    def __init__(self, source, steps):
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self._source, self._steps = source, steps

    def rows(self, step, row_indices):
        batch = self._source.rows(step, row_indices)
        return batch._replace(targets=60 - batch.targets) if step in self._steps else batch


def test_a_resumed_run_skips_the_spikes_that_the_whole_run_skips(tmp_path, capfd):
    config = make_config(
        schedule__learning_rate=1e-2,
        train__spike_threshold=3.0,
        train__spike_window=8,
        train__total_steps=24,
        checkpoint__every=100,
        eval__every=0,
    )
    setup = make_setup(config)
    setup = dataclasses.replace(setup, source=Garbled(setup.source, (14, 17, 18)))
    states = []
    for stops in ([None], [18, None]):  # within a row of two
        workdir = tmp_path / str(len(stops))
        for stop_at_step in stops:
            run = Trainer(config, workdir, setup)
            run.run(stop_at_step)
        store = CheckpointStore(workdir / "checkpoints")
        abstract = run.fixed.abstract
        states.append(store.restore(24, abstract.params, without_params(abstract)))
        store.close()
        said = capfd.readouterr().err
        for step in (15, 18, 19):
            file = workdir / "bad_steps" / f"{step}.json"
            assert file.exists() and f"update skipped: see {file}" in said
        assert said.count("skipped") == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    window = states[0][1]["loss_window"]
    assert (int(window.count), int(window.spikes)) == (24 - 3, 0)


def test_init_from_starts_from_the_parameters_that_are_read(tmp_path):
    config, recorder = make_config(train__init_from="elsewhere", eval__every=1), Recorder()
    named = []

    def read_params(name, abstract):
        named.append(name)
        return jax.tree.map(
            lambda leaf: jax.device_put(np.full(leaf.shape, 0.01, np.float32), leaf.sharding),
            abstract,
        )

    setup = make_setup(config, [recorder], read_params=read_params)
    Trainer(config, tmp_path, setup).run(stop_at_step=1)
    assert named == ["elsewhere"]
    # One update moves each number by at most the learning rate (and decay, far less).
    moved = [np.abs(leaf - 0.01).max() for leaf in jax.tree.leaves(recorder.seen[0])]
    assert 0 < max(moved) < 1.1e-3
    # A run that has a checkpoint of its own goes on from it.
    Trainer(config, tmp_path, setup).run(stop_at_step=2)
    assert named == ["elsewhere"]


def test_the_trainer_refuses_before_it_touches_anything(tmp_path):
    config = make_config(train__batch_size=12)
    with pytest.raises(UserError, match=r"batch_size=12 .*try 8 or 16"):
        Trainer(config, tmp_path / "run", make_setup(config))
    assert not (tmp_path / "run").exists()
