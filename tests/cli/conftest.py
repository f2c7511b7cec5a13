"""Makes the folder and the model that the tests of wrong inputs use.

JAX reads JAX_PLATFORMS once, when it is imported, and pytest may read this file before
`tests/conftest.py` has set that variable. So only the fixtures import what needs JAX.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from tests.cli.refusals import CONFIG

_TEXT = "To be, or not to be: that is the question. " * 40


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a config, a text, its byte shards and the config of a finished run."""
    from tests.inference.tiny import tiny_config

    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(CONFIG, encoding="utf-8")
    Path("text.txt").write_text(_TEXT, encoding="utf-8")
    prepare(read_inputs(["text.txt"]), "byte", "data")
    Path("run", "checkpoints").mkdir(parents=True)
    values = config_lib.to_dict(tiny_config())
    values["data"]["path"] = "data"
    Path("run", "config.json").write_text(json.dumps(values), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.inference.tiny import make_run

    return str(make_run(tmp_path_factory.mktemp("wrong") / "run"))
