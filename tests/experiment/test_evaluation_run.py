"""`evaluate` from Python gives the results of the command line."""

from __future__ import annotations

import math

import pytest

import gpt2_jax
from gpt2_jax.errors import UserError
from tests.experiment.lab import read_json


def test_evaluate_equals_the_command(lab, run, capsys):
    workdir, _ = run
    (lab / "letters.txt").write_text("one fish two fish red fish blue fish. " * 3)
    report = gpt2_jax.evaluate(
        workdir, ["lambada_openai"], lab, texts={"letters.txt": lab / "letters.txt"}, limit=2
    )
    words = ("--tasks", "lambada_openai", "--data", lab, "--text", lab / "letters.txt")
    document = read_json(capsys, "eval", "--model", workdir, *words, "--limit", 2, "--json")
    assert report["tasks"].keys() == {"lambada_openai", "letters.txt"}
    assert report["step"] == 4 and report["limit"] == 2
    assert report["tasks"]["lambada_openai"]["count"] == 2
    for task, metrics in report["tasks"].items():
        for name, value in metrics.items():
            printed = document["tasks"][task][name]
            assert printed == value or (printed is None and math.isnan(value)), (task, name)
    assert {name: document[name] for name in ("step", "limit", "protocols")} == {
        name: report[name] for name in ("step", "limit", "protocols")
    }


@pytest.mark.slow
def test_evaluate_keeps_results_reports_progress_and_resumes(lab, run, tmp_path):
    calls = []

    class Progress:
        def __init__(self, task):
            self.task = task

        def __enter__(self):
            return lambda done, total: calls.append((self.task, done, total))

        def __exit__(self, *_):
            calls.append(f"{self.task} is done")

    def evaluate():
        return gpt2_jax.evaluate(run[0], ["lambada_openai"], lab, out=tmp_path, progress=Progress)

    first = evaluate()
    assert calls[-2:] == [("lambada_openai", 3, 3), "lambada_openai is done"]
    assert (tmp_path / "results.json").exists()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert evaluate()["tasks"] == first["tasks"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["lambda"]}, "unknown task 'lambda'"),
        ({"tasks": ["transl"]}, "unknown task 'transl'; did you mean 'translation'"),
        (
            {"tasks": ["xyz"]},
            "unknown task 'xyz'; the tasks are: .*hellaswag.*translation, .*music",
        ),
        ({"tasks": ["lambada_openai"], "limit": 0}, "limit must be at least 1, not 0"),
        ({"tasks": ["lambada_openai"], "stride": 0}, "stride must be at least 1, not 0"),
    ],
)
def test_evaluate_refuses_wrong_arguments_before_it_opens_the_model(lab, arguments, message):
    with pytest.raises(UserError, match=message):
        gpt2_jax.evaluate(lab / "no_model", data=lab, **arguments)
