"""Our workers at tiny sizes: each does its parts, and what it answers is right."""

import dataclasses
import importlib
import math

import numpy as np
import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks.case import Shape
from experiments.benchmarks.inputs import Inputs
from experiments.benchmarks.suites import SUITES
from experiments.benchmarks.workers import jax_inputs
from experiments.benchmarks.workers.__main__ import MODULES
from gpt2_jax.formats.load import load

_CASES = {case.name: case for suite in ("cpu", "gpu") for case in SUITES[suite](True)}
_SLOW = pytest.mark.slow


def _write(shape, folder):
    jax_inputs.prepare({"shape": dataclasses.asdict(shape), "folder": str(folder)})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return Inputs(tmp_path_factory.mktemp("inputs"), True, _write, {})


def _answers(name, inputs, parts=None):
    """Prepares our program for a case; returns {part: its answer in the second round}.

    By default the parts are all of the case; each is a program to compile.
    """
    case = _CASES[name]
    module = importlib.import_module(f"experiments.benchmarks.workers.{MODULES['jax', case.kind]}")
    task = inputs.fill(case) | {"options": {}}
    measured = module.prepare(task)
    parts = case.parts if parts is None else parts
    for part in parts:
        measured.run(part, case.count)
    return task, {part: measured.run(part, case.count) for part in parts}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("train_124m_bfloat16", None, marks=_SLOW),
        pytest.param("train_1558m", None, marks=_SLOW),
        ("train_1558m", ["step", "optimizer"]),  # the latter takes the gradients of the others
    ],
)
def test_training_learns_and_times_its_parts(name, parts, inputs):
    _, answers = _answers(name, inputs, parts)
    assert [*answers] == (parts or ["step", "forward", "forward+backward", "optimizer"])
    assert all(answer["seconds"] > 0 for answer in answers.values())
    losses = answers["step"]["losses"]
    assert len(losses) == _CASES[name].count
    assert all(0 < loss < math.log(96) for loss in losses)
    assert not answers["optimizer"]["losses"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("decode_float32", None, marks=_SLOW),
        pytest.param("decode_bfloat16", None, marks=_SLOW),
        ("decode_float32", ["8 x 16"]),
    ],
)
def test_decoding_gives_every_row_its_tokens(name, parts, inputs):
    task, answers = _answers(name, inputs, parts)
    assert {part: np.shape(answer["tokens"]) for part, answer in answers.items()} == {
        part: (batch, 4)
        for part, (batch, _) in task["batches"].items()
        if parts is None or part in parts
    }


def test_scoring_gives_every_window_its_log_probability(inputs):
    task, answers = _answers("score", inputs)
    values = answers["score"]["values"]
    assert len(values) == task["windows"] and all(value < -16 for value in values)


@pytest.mark.parametrize("name", ["load", "ceilings", pytest.param("scaling_width", marks=_SLOW)])
def test_the_others_answer(name, inputs):
    _, answers = _answers(name, inputs)
    assert all(answer["seconds"] > 0 for answer in answers.values())
    assert all(answer.get("values") or answer["losses"] for answer in answers.values())


def test_weights_have_noise_everywhere(inputs, tmp_path):
    shape = Shape(2, 2, 32, 16, 96)
    _write(shape, tmp_path / "weights")
    params = load(tmp_path / "weights").params
    assert np.std(np.asarray(params["ln_f"]["scale"])) > 0.01
    assert np.std(np.asarray(params["ln_f"]["bias"])) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_whole_suite_runs_at_a_tiny_size(suite, tmp_path, monkeypatch):
    # The commands that it times see one device, as a user's do, and not the tests' eight.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    words = ["--suite", suite, "--size", "tiny", "--rounds", "1"]
    assert command.main([*words, "--peers", "none", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{suite}.md").read_text("utf-8").count("\n## ") == len(SUITES[suite](True))
