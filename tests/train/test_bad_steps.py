from __future__ import annotations

import json
import math
import types

import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import NumbersWentBad
from gpt2_jax.train import bad_steps
from gpt2_jax.train.bad_steps import KEPT, BadSteps


def make(workdir, max_bad_steps=1000):
    config = from_dict({"train": {"batch_size": 2, "max_bad_steps": max_bad_steps}})
    setup = types.SimpleNamespace(origins=lambda batch: [("data/a", 10 * batch), ("data/b", 7)])
    return BadSteps(types.SimpleNamespace(config=config, workdir=workdir, setup=setup))


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
    """What the text says, if it is JSON to other programs than Python too."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_file_of_a_bad_step_names_the_layers_and_the_rows(tmp_path):
    said = make(tmp_path).check(41, metrics())
    path = tmp_path / "bad_steps" / "41.json"
    assert said == f"step 41: loss or gradient not finite, update skipped: see {path}"
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


def test_a_loss_above_its_limit_is_said_and_written_but_does_not_end_the_run(tmp_path):
    spike = metrics(bad_steps=0, loss=9.25, loss_limit=4.5)
    said = make(tmp_path, max_bad_steps=1).check(41, spike)
    path = tmp_path / "bad_steps" / "41.json"
    assert said == f"step 41: loss 9.250 spikes above 4.500, update skipped: see {path}"
    record = strict(path.read_text())
    assert record["reason"] == "loss 9.250 spikes above 4.500" and record["loss"] == 9.25


@pytest.mark.parametrize("loss_limit", [None, 9.25, math.inf])
def test_an_applied_update_leaves_nothing(tmp_path, loss_limit):
    applied = metrics(bad_steps=0, loss=9.25, loss_limit=loss_limit)
    assert make(tmp_path, max_bad_steps=1).check(1, applied) is None
    assert not list(tmp_path.iterdir())


def test_the_newest_files_are_kept_and_the_last_written_in_any_case(tmp_path):
    watch, folder = make(tmp_path), tmp_path / "bad_steps"
    for step in range(1, 2 * KEPT):
        watch.check(step, metrics())
    (folder / "notes.json").write_text("of somebody")
    watch.check(2, metrics())  # the run was set back
    kept = {"notes.json", "2.json", *(f"{step}.json" for step in range(KEPT + 1, 2 * KEPT))}
    assert {path.name for path in folder.iterdir()} == kept and len(kept) == KEPT + 1


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "bad_steps").write_text("in the way")
    said = make(tmp_path).check(3, metrics())
    assert "can't write" in said and "File exists" in said and "\n" not in said


def test_one_process_writes_and_all_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_steps, "is_primary", lambda: False)
    with pytest.raises(NumbersWentBad, match=r"2 steps in a row, up to step 9.*9\.json"):
        make(tmp_path, max_bad_steps=2).check(9, metrics(bad_steps=2))
    assert not list(tmp_path.iterdir())
