from __future__ import annotations

import json
import types

import numpy as np
import pytest

from gpt2_jax.training import evaluation
from gpt2_jax.training.evaluation import Evaluation, Stopped
from gpt2_jax.training.trackers import JsonLines
from tests.training.tiny import make_config


class Parts:
    """An evaluation whose parts keep what they were called with."""

    def __init__(self, workdir, *evaluators, **changes):
        self.logged, self.messages, self.reports, self.stopping = [], [], [], False
        setup = types.SimpleNamespace(make_evaluators=lambda *arguments: evaluators)
        run = types.SimpleNamespace(
            config=make_config(**changes),
            workdir=workdir,
            setup=setup,
            abstract=types.SimpleNamespace(params=None),
            mesh=None,
            rules=None,
        )
        trackers = types.SimpleNamespace(
            log=lambda step, values: self.logged.append((step, values)),
            text=lambda step, name, text: self.logged.append((step, name, text)),
        )
        self.evaluation = Evaluation(
            run,
            trackers,
            types.SimpleNamespace(message=self.messages.append),
            types.SimpleNamespace(requested=lambda: self.stopping),
            types.SimpleNamespace(report=self.reports.append),
        )

    def __call__(self, step):
        self.evaluation(step, types.SimpleNamespace(params="params", ema=None))


def test_numbers_are_logged_and_shown_and_texts_become_samples(tmp_path):
    def first(params, tick):
        assert params == "params"
        tick()
        yield "eval/loss", 2.5
        yield "sample", "one fish\ntwo"

    def second(params, tick):
        yield "eval/acc", 0.25

    parts = Parts(tmp_path, first, second)
    parts(7)
    numbers = {"eval/loss": 2.5, "eval/acc": 0.25}
    assert parts.logged == [(7, "sample", "one fish\ntwo"), (7, numbers)]
    assert parts.messages == ["step 7: eval/loss 2.5000  eval/acc 0.2500"]
    assert parts.evaluation.results == numbers
    assert (tmp_path / "samples" / "7.txt").read_text() == "one fish\ntwo\n"


def test_an_array_becomes_a_file_of_the_last_validation(tmp_path):
    curves = iter([np.array([3.0, 2.0]), np.array([2.5, np.nan])])
    parts = Parts(tmp_path, lambda params, tick: iter([("eval/loss_by_position", next(curves))]))
    for step in (4, 8):
        parts(step)
    text = (tmp_path / "loss_by_position.json").read_text()
    assert json.loads(text) == {"step": 8, "loss_by_position": [2.5, None]}
    assert parts.logged == [] and parts.evaluation.results == {}


def test_a_stop_between_batches_writes_no_number(tmp_path):
    def evaluator(params, tick):
        yield "eval/first", 1.0
        parts.stopping = True
        tick()
        yield "eval/second", 2.0

    parts = Parts(tmp_path, evaluator)
    with pytest.raises(Stopped):
        parts(7)
    assert parts.logged == parts.messages == [] and parts.evaluation.results == {}


def test_a_sample_that_cannot_be_written_is_a_warning(tmp_path, capfd):
    (tmp_path / "samples").write_text("in the way")
    Parts(tmp_path, lambda params, tick: iter([("sample", "text")]))(7)
    assert "samples/7.txt was not written" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("start", "stop_at", "every", "missed"),
    [
        (0, 12, 4, False),  # a new run
        (4, 12, 4, False),  # validated
        (8, 12, 4, True),
        (7, 12, 4, False),  # not due
        (8, 12, 0, False),
        (12, 12, 0, True),  # the last step of this start is always due
        (7, 5, 4, True),
    ],
)
def test_a_validation_is_missed_if_it_was_due_and_metrics_have_none(
    tmp_path, start, stop_at, every, missed
):
    tracker = JsonLines(tmp_path, 0)
    tracker.log(4, {"eval/loss": 2.5})
    tracker.log(8, {"loss": 2.0})
    tracker.close()
    parts = Parts(tmp_path, eval__every=every)
    assert parts.evaluation.results == {"eval/loss": 2.5}
    assert parts.evaluation.missed(start, stop_at) == missed


def test_process_0_decides_what_was_missed(tmp_path, monkeypatch):
    # It alone drops lines on resume, which the others may have read before.
    monkeypatch.setattr(evaluation, "broadcast_from_primary", lambda value: 4)
    assert Parts(tmp_path).evaluation.missed(8, 12)
    assert not Parts(tmp_path).evaluation.missed(4, 12)
