"""A variable of JAX with a value that JAX refuses is named in one line, with status 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpt2_jax.parallel.variables import refused_variable

_REFUSED = {
    "JAX_NUM_CPU_DEVICES": "abc",
    "JAX_ENABLE_X64": "banana",
    "JAX_DEFAULT_DEVICE": "nowhere",
    "JAX_DEFAULT_PRNG_IMPL": "dice",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "soon",
}
_CODE = """
import os
import sys
from gpt2_jax.cli.main import main
plan = ["plan", "--config", "quickstart", "--chip", "h100", "--devices", "8"]
train = ["train", "--config", "quickstart", "--dry_run"]
for word in sys.argv[1:]:
    name, _, value = word.partition("=")
    os.environ[name] = value
    print(name, main(plan if name == "JAX_ENABLE_X64" else train))
    del os.environ[name]
    for module in [module for module in sys.modules if module.partition(".")[0] == "jax"]:
        del sys.modules[module]  # so that JAX reads its variables once more
"""


def test_a_refused_variable_is_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name[:4] != "JAX_"}
    environment["JAX_ENABLE"] = "a name that others begin with"
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *(f"{name}={value}" for name, value in _REFUSED.items())],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"{name} 2" for name in _REFUSED], done.stderr
    errors = done.stderr.splitlines()
    assert len(errors) == len(_REFUSED), done.stderr
    for error, (name, value) in zip(errors, _REFUSED.items(), strict=True):
        assert error.startswith(f"error: {name}={value} in the environment is not a value that JAX")


def test_other_errors_are_not_blamed_on_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "true")
    assert refused_variable(ValueError("JAX_ENABLE_X64")) is None
    assert refused_variable(RuntimeError("Unable to initialize backend 'cpu'")) is None
