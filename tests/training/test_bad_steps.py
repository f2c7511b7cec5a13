from __future__ import annotations

import dataclasses
import json
import math
import types

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import from_dict
from gpt2_jax.errors import NumbersWentBad
from gpt2_jax.training import bad_steps
from gpt2_jax.training.bad_steps import KEPT, BadSteps
from gpt2_jax.training.state import without_params
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import TOKENS, Recorder, lines, make_config, make_setup


def make(workdir, max_bad_steps=1000):
    config = from_dict({"train": {"batch_size": 2, "max_bad_steps": max_bad_steps}})
    setup = types.SimpleNamespace(origins=lambda batch: [("data/a", 10 * batch), ("data/b", 7)])
    warnings = []
    run = types.SimpleNamespace(config=config, workdir=workdir, setup=setup)
    return BadSteps(run, warnings.append), warnings


def metrics(bad_steps=1, loss=math.nan, loss_limit=None, norms=(1.0, math.inf)):
    return {
        "loss": np.float32(loss),
        "grad_norm": np.float32(-math.inf),
        "learning_rate": np.float32(0.5),
        "bad_steps": np.int32(bad_steps),
        "loss_limit": None if loss_limit is None else np.float32(loss_limit),
        "grad_norms": {"wpe": np.float32(2), "h/mlp/fc": np.array(norms, np.float32)},
    }


def strict(text):
    """Parses a text that must be JSON for other programs, too."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_the_file_of_a_bad_step_names_the_layers_and_the_rows(tmp_path):
    bad_steps, warnings = make(tmp_path)
    bad_steps.check(41, metrics())
    path = tmp_path / "bad_steps" / "41.json"
    assert warnings == [f"step 41: loss or gradient not finite, update skipped: see {path}"]
    assert strict(path.read_text()) == {
        "step": 41,
        "reason": "loss or gradient not finite",
        "loss": "nan",
        "grad_norm": "-inf",
        "learning_rate": 0.5,
        "grad_norms": {"wpe": 2.0, "mlp/fc/0": 1.0, "mlp/fc/1": "inf"},
        "batch": 40,
        "row_tokens": 1025,
        "rows": [["data/a", 400], ["data/b", 7]],
    }


def test_a_loss_above_its_limit_is_shown_and_written_but_does_not_end_the_run(tmp_path):
    spike = metrics(bad_steps=0, loss=9.25, loss_limit=4.5)
    bad_steps, warnings = make(tmp_path, max_bad_steps=1)
    bad_steps.check(41, spike)
    path = tmp_path / "bad_steps" / "41.json"
    assert warnings == [f"step 41: loss 9.250 spikes above 4.500, update skipped: see {path}"]
    record = strict(path.read_text())
    assert record["reason"] == "loss 9.250 spikes above 4.500" and record["loss"] == 9.25


@pytest.mark.parametrize("loss_limit", [None, 9.25, math.inf])
def test_an_applied_update_leaves_nothing(tmp_path, loss_limit):
    applied = metrics(bad_steps=0, loss=9.25, loss_limit=loss_limit)
    bad_steps, warnings = make(tmp_path, max_bad_steps=1)
    bad_steps.check(1, applied)
    assert not warnings and not list(tmp_path.iterdir())


def test_the_newest_files_are_kept_and_the_last_written_in_any_case(tmp_path):
    (bad_steps, _), folder = make(tmp_path), tmp_path / "bad_steps"
    for step in range(1, 2 * KEPT):
        bad_steps.check(step, metrics())
    (folder / "notes.json").write_text("of somebody")
    bad_steps.check(2, metrics())  # the run was set back
    kept = {"notes.json", "2.json", *(f"{step}.json" for step in range(KEPT + 1, 2 * KEPT))}
    assert {path.name for path in folder.iterdir()} == kept and len(kept) == KEPT + 1


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "bad_steps").write_text("in the way")
    bad_steps, warnings = make(tmp_path)
    bad_steps.check(3, metrics())
    (warning,) = warnings
    assert "cannot write" in warning and "File exists" in warning and "\n" not in warning


def test_one_process_writes_and_all_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_steps, "is_primary", lambda: False)
    with pytest.raises(NumbersWentBad, match=r"2 steps in a row, up to step 9.*9\.json"):
        make(tmp_path, max_bad_steps=2)[0].check(9, metrics(bad_steps=2))
    assert not list(tmp_path.iterdir())


class BadFrom:
    """A source whose batches from `step` on have losses that are not finite."""

    weighted = True
    segmented = False

    def __init__(self, source, step):
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self._source, self._step = source, step

    def rows(self, step, row_indices):
        batch = self._source.rows(step, row_indices)
        weight = 1 if step < self._step else np.nan
        return batch._replace(weights=np.full_like(batch.targets, weight, np.float32))


@pytest.mark.slow
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
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[0] > 0 and losses[-1] is None
    # Each of them has a file, and the error names the last.
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "bad_steps").iterdir()}
    assert files.keys() == {"3.json", "4.json", "5.json"}
    assert str(caught.value).endswith(f"see {tmp_path / 'bad_steps' / '5.json'}")
    last = files["5.json"]
    assert (last["step"], last["loss"], last["grad_norm"]) == (5, "nan", "nan")
    assert set(last["grad_norms"].values()) == {"nan"} and len(last["grad_norms"]) == 4 + 2 * 12
    assert last["learning_rate"] == pytest.approx(1e-3)  # the warmup of two is over
    # The rows that the step has read can be read again.
    batch = setup.source.rows(last["batch"], range(8))
    for row, (folder, first) in enumerate(last["rows"]):
        window = TOKENS.read(first, last["row_tokens"])
        assert folder == "data/tokens"
        assert np.array_equal(window, batch.tokens[row])
    assert len(last["rows"]) == 8


@pytest.mark.slow
def test_a_run_that_is_resumed_continues_to_count_bad_steps(tmp_path, capfd):
    config = make_config(train__max_bad_steps=5, eval__every=0)
    setup = make_setup(config)
    setup = dataclasses.replace(setup, source=BadFrom(setup.source, 2))
    Trainer(config, tmp_path, setup).run(stop_at_step=4)
    assert f"update skipped: see {tmp_path / 'bad_steps' / '4.json'}" in capfd.readouterr().err
    with pytest.raises(NumbersWentBad, match="5 steps in a row, up to step 7"):
        Trainer(config, tmp_path, setup).run()


class Garbled:
    """A source with batches, of these numbers, whose tokens follow from each other otherwise."""

    weighted = False
    segmented = False

    def __init__(self, source, steps):
        self.batch_size, self.context_length = source.batch_size, source.context_length
        self._source, self._steps = source, steps

    def rows(self, step, row_indices):
        batch = self._source.rows(step, row_indices)
        if step in self._steps:
            batch.tokens[:, ::2] = 60 - batch.tokens[:, ::2]
        return batch


@pytest.mark.slow
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
        abstract = run.constants.abstract
        states.append(store.restore(24, abstract.params, without_params(abstract)))
        store.close()
        output = capfd.readouterr().err
        for step in (15, 18, 19):
            file = workdir / "bad_steps" / f"{step}.json"
            assert file.exists() and f"update skipped: see {file}" in output
        assert output.count("skipped") == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    window = states[0][1]["loss_window"]
    assert (int(window.count), int(window.spikes)) == (24 - 3, 0)
