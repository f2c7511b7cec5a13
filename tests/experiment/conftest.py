"""Makes the data and the run that the tests share; only fixtures import what needs JAX."""

from __future__ import annotations

import json

import pytest

import gpt2_jax

_TEXTS = ("one red fish", "two blue", "fish fish fish fish")


@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    """A folder with a config, its data, and the examples of a task."""
    from tests.runs import fill_lab

    folder = tmp_path_factory.mktemp("experiment")
    fill_lab(folder)
    examples = [json.dumps({"text": text}) for text in _TEXTS]
    (folder / "lambada_test.jsonl").write_text("\n".join(examples))
    return folder


@pytest.fixture(scope="package")
def run(lab):
    """The run that Python trained, and what `train` returned."""
    from tests.experiment.lab import make_config

    return lab / "python", gpt2_jax.train(make_config(lab), lab / "python")
