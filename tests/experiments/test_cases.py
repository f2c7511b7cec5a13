"""The cases: sizes that other parts of the project state too, and names that are unique."""

import pytest

from experiments.benchmarks import suites
from experiments.benchmarks.case import Shape
from experiments.benchmarks.small_runs import QUICKSTART, SHAKESPEARE
from experiments.benchmarks.suites import SUITES
from experiments.benchmarks.workers.__main__ import MODULES
from gpt2_jax.config import ModelConfig, load_config
from gpt2_jax.model.flops import flops_per_token, num_params


@pytest.mark.parametrize("shape", [Shape(2, 2, 32, 16, 96), Shape(12, 12, 768, 1024, 50257)])
def test_sizes_are_those_of_the_model(shape):
    config = ModelConfig(
        num_layers=shape.layers,
        num_heads=shape.heads,
        d_model=shape.width,
        context_length=shape.context,
        vocab_size=shape.vocab,
    )
    assert shape.params == num_params(config)
    assert shape.flops_per_token == flops_per_token(config)


@pytest.mark.parametrize(
    ("name", "shape", "vocab"),
    [("quickstart", QUICKSTART, 257), ("shakespeare_char", SHAKESPEARE, 65)],
)
def test_small_runs_have_the_shape_of_their_config(name, shape, vocab):
    model = load_config(f"configs/{name}.py").model
    named = (model.num_layers, model.num_heads, model.d_model, model.context_length)
    assert (shape.layers, shape.heads, shape.width, shape.context) == named
    assert shape.vocab == vocab


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("tiny", [False, True])
def test_every_case_has_its_worker_and_a_name_of_its_own(suite, tiny):
    cases = SUITES[suite](tiny)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    for case in cases:
        assert all((subject.program, case.kind) in MODULES for subject in case.subjects), case.name
        assert case.subjects[0].program in ("jax", "command")


def test_a_tiny_suite_has_the_cases_of_the_full_one(monkeypatch):
    monkeypatch.setattr(suites, "multiplies_bfloat16", lambda: True)
    for suite, make in SUITES.items():
        assert [case.name for case in make(True)] == [case.name for case in make(False)], suite


def test_a_larger_gpu_gets_larger_batches():
    batches = [
        {
            case.name: case.task["batch"]
            for case in SUITES["gpu"](False, memory)
            if "batch" in case.task
        }
        for memory in (80e9, 140e9)
    ]
    assert batches[1]["train_1558m"] == 2 * batches[0]["train_1558m"]
