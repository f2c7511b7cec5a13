"""A run ends after `train.patience` validations without a new best step, and a restart knows it."""

from __future__ import annotations

import math

import pytest

from tests.training.scored import best, saved, train
from tests.training.tiny import lines, steps_with

_VALUES = {2: 5.0, 4: 2.0, 6: 3.0, 8: 2.0, 10: 1.0, 12: 4.0}


@pytest.mark.slow
def test_the_run_ends_saved_and_says_why_and_a_second_start_does_nothing(tmp_path, capfd):
    results = train(tmp_path, _VALUES, train__patience=2, log__goodput_every=0)
    assert results == {"step": 8, "eval/loss": 2.0, "eval/accuracy": -2.0, "best_step": 4}
    assert saved(tmp_path) == [4, 8]
    why = "eval/loss was not better than 2.0000, of step 4, in 2 validations in a row, as"
    assert f"ended at step 8 of 12: {why} train.patience=2 asks" in capfd.readouterr().err
    # Step 8 is logged like the last of any run.
    assert steps_with(tmp_path, "loss") == [1, 3, 6, 8] and "goodput" in str(lines(tmp_path)[-1])

    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    assert train(tmp_path, {}, train__patience=2) == results
    err = capfd.readouterr().err
    assert f"done: {tmp_path} ended at step 8 of 12, because {why}" in err
    assert "a larger train.patience goes on" in err and "compiling" not in err
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


@pytest.mark.slow
def test_a_larger_patience_goes_on(tmp_path):
    assert train(tmp_path, _VALUES, train__patience=2)["step"] == 8
    results = train(tmp_path, _VALUES, train__patience=3)
    assert results["step"] == 12 and results["best_step"] == 10 == best(tmp_path)
    assert steps_with(tmp_path, "eval/loss") == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_validations_of_earlier_starts_count(tmp_path):
    train(tmp_path, _VALUES, stop_at_step=6, train__patience=2)
    assert train(tmp_path, _VALUES, train__patience=2)["step"] == 8


@pytest.mark.slow
def test_a_step_without_a_number_is_no_better(tmp_path):
    values = {**_VALUES, 2: math.nan, 4: math.inf}
    results = train(tmp_path, values, train__patience=2)
    assert results["step"] == 4 and "best_step" not in results and saved(tmp_path) == [4]


@pytest.mark.slow
def test_a_validation_that_was_missed_may_end_the_run(tmp_path):
    train(tmp_path, _VALUES, stop_at_step=8, train__patience=9)
    metrics = tmp_path / "metrics.jsonl"
    kept = [line for line in metrics.read_text().splitlines() if '{"step": 8, "eval/' not in line]
    metrics.write_text("\n".join(kept) + "\n")  # as if it was killed between save and validation
    assert train(tmp_path, _VALUES, train__patience=2)["step"] == 8
    assert steps_with(tmp_path, "eval/loss") == [2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1, 4])
def test_a_run_that_reaches_its_end_is_done(tmp_path, patience, capfd):
    values = {2: 6.0, 4: 5.0, 6: 4.0, 8: 3.0, 10: 2.0, 12: 3.0}
    assert train(tmp_path, values, train__patience=patience)["step"] == 12
    assert train(tmp_path, values, train__patience=patience)["step"] == 12
    assert "ended" not in (err := capfd.readouterr().err) and "is at step 12 of 12" in err
