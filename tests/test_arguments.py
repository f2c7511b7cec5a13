"""Any argument of the public Python API gives a value, or an error of one line that names it.

The arguments are of every type and range; each call changes one argument of a call that works.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpt2_jax
from gpt2_jax import SamplingOptions
from gpt2_jax.config import Config, from_dict, knobs, load_config
from gpt2_jax.errors import UserError
from tests.inference.tiny import make_run, tiny_config

_ANY = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**32, 2**40, 2**70, -(2**70), 10**5000])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["3", "1", "", "\0", "\ud800", "a" * 300, "/" * 5000, "é", "run://x"])
    | st.binary(max_size=3)
    | st.sampled_from([b"", (), (1,), {}, {"a": 1}, {1: 2}, [], ["a"], [""], [1], ["a", None]])
    | st.sampled_from([np.int64(2), np.int64(-1), np.float32(0.5), np.bool_(True), np.zeros(3)])
    | st.sampled_from([np.array(3), np.array("a")])
    | st.sampled_from([object(), int, print, Path("/nowhere"), Path("a\0b"), 1j, np.nan])
    | st.just(SamplingOptions(top_k=2))
    | st.lists(st.text(max_size=2) | st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=2) | st.integers(), st.integers() | st.text(), max_size=2)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arguments")
    make_run(
        folder / "run",
        tiny_config(scan_unroll=1, num_layers=1, d_model=8, num_heads=1, context_length=8),
    )
    (folder / "config.py").write_text("from gpt2_jax.config import default as get_config\n")
    (folder / "text.txt").write_text("a text")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> gpt2_jax.LanguageModel:
    return gpt2_jax.load(folder / "run")


def _outcome(call: Any, *args: Any, **arguments: Any) -> str:
    """Returns the message that refuses the arguments, or an empty string for a value."""
    try:
        result = call(*args, **arguments)
        if hasattr(result, "__next__"):
            list(result)
    except UserError as error:
        assert "\n" not in str(error) and 10 < len(str(error)) < 6000
        return str(error)
    return ""


def _each_argument(examples: int, **strategies: Any) -> Any:
    """Calls the test with (name, value) of one argument, derandomized."""
    values = {name: strategy | _ANY for name, strategy in strategies.items()}
    pairs = st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), values[name])
    )
    unusual = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    quick = settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=unusual
    )
    return lambda test: quick(given(argument=pairs)(test))


@_each_argument(
    40,
    prompt=st.just("b"),
    num_samples=st.just(2),
    max_new_tokens=st.integers(-1, 9),
    options=st.just(SamplingOptions()),
    stop=st.just(["a", "bc"]),
    seed=st.integers(-(2**33), 2**33),
)
def test_generate_and_stream(model: Any, argument: tuple[str, Any]) -> None:
    name, value = argument
    defaults: dict[str, Any] = {"prompt": "a", "max_new_tokens": 2}
    message = _outcome(model.generate, **(defaults | {name: value}))
    assert not message or name in message or "tokens" in message or "surrogate" in message
    if name != "num_samples":
        assert _outcome(model.stream, **(defaults | {name: value})) == message


@_each_argument(50, score=st.just("ab"), attention=st.just("ab"), prompt=st.just("ab"), count=_ANY)
def test_what_looks_into_the_model(model: Any, argument: tuple[str, Any]) -> None:
    name, value = argument
    if name in ("score", "attention"):
        _outcome(getattr(model, name), value)
    else:
        _outcome(model.next_tokens, **({"prompt": "a", "count": 1} | {name: value}))


@_each_argument(100, temperature=st.floats(), top_k=st.integers(-2, 90), top_p=st.floats())
def test_sampling_options(argument: tuple[str, Any]) -> None:
    name, value = argument
    message = _outcome(SamplingOptions, **{name: value})
    assert not message or name in message
    if not message:
        made = SamplingOptions(**{name: value})
        kinds = {field.name: type(getattr(made, field.name)) for field in dataclasses.fields(made)}
        assert (kinds["temperature"], kinds["top_k"], kinds["top_p"]) == (float, int, float)
        assert isinstance(hash(made), int) and math.isfinite(made.temperature)


@_each_argument(60, model=_ANY)
def test_load(argument: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt2_jax.formats.load._HUB_ID", re.compile("(?!)"))
    assert _outcome(gpt2_jax.load, argument[1])


_EVALUATE = dict.fromkeys(
    (
        *("model", "tasks", "data", "texts", "limit", "stride", "detokenize", "out", "progress"),
        *("validation", "context_length", "ema"),
    ),
    _ANY,
)


@pytest.mark.slow
@_each_argument(100, **_EVALUATE)
def test_evaluate(
    folder: Path, argument: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt2_jax.formats.load._HUB_ID", re.compile("(?!)"))
    monkeypatch.setattr(
        "gpt2_jax.evals.run.evaluate", lambda *_, **__: {"count": 1}
    )  # what is computed does not depend on what is checked
    defaults = {"model": folder / "run", "texts": {"text": folder / "text.txt"}}
    _outcome(gpt2_jax.evaluate, **(defaults | dict([argument])))


_TRAIN = dict.fromkeys(
    ("config", "workdir", "stop_at_step", "check_sha256", "compare_compressors"), _ANY
)


@_each_argument(80, **_TRAIN)
def test_train_without_data(tmp_path: Path, argument: tuple[str, Any]) -> None:
    defaults = {"config": Config(), "workdir": tmp_path / "run"}
    assert _outcome(gpt2_jax.train, **(defaults | dict([argument])))
    assert not (tmp_path / "run").exists()


@_each_argument(100, path=st.none(), overrides=st.lists(st.text(max_size=9), max_size=2))
def test_load_config(folder: Path, argument: tuple[str, Any]) -> None:
    defaults = {"path": folder / "config.py"}
    _outcome(load_config, **(defaults | dict([argument])))


_SECTIONS = {knob.key: _ANY for knob in knobs()}


@_each_argument(300, whole=_ANY, section=st.dictionaries(st.just("train"), _ANY), **_SECTIONS)
def test_from_dict(argument: tuple[str, Any]) -> None:
    key, value = argument
    if key == "whole":
        _outcome(from_dict, value)
    elif key == "section":
        _outcome(from_dict, value if isinstance(value, dict) else {"train": value})
    else:
        section, name = key.split(".")
        message = _outcome(from_dict, {section: {name: value}})
        assert not message or section in message or name in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stop", "XYZ the", "stop must be a list of strings such as ['\\n\\n'], not 'XYZ the'"),
        ("stop", [""], "stop must not contain an empty string"),
        ("stop", ["a", 3], "stop[1] must be a string, not 3 (int)"),
        ("seed", None, "seed must be an integer, not None"),
        ("seed", 1.5, "seed must be an integer, not 1.5 (float)"),
        ("seed", 2**32, "seed must be at most 4294967295, not 4294967296"),
        ("seed", -1, "seed must be at least 0, not -1"),
        ("max_new_tokens", "3", "max_new_tokens must be an integer, not '3' (str)"),
        ("num_samples", True, "num_samples must be an integer, not True (bool)"),
        ("num_samples", 10**9, "num_samples must be at most 10000, not 1000000000"),
        ("prompt", np.array(3), "prompt must be a string or a list of token ids, not array(3)"),
        ("stop", np.array("a"), "stop must be a list of strings such as ['\\n\\n'], not array("),
        ("prompt", None, "prompt must be a string or a list of token ids, not None"),
        ("options", {"top_k": 3}, "options must be SamplingOptions(...), not dict"),
    ],
)
def test_messages_of_generate(model: Any, name: str, value: Any, message: str) -> None:
    assert message in _outcome(model.generate, **({"prompt": "a", name: value}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tasks", "hellaswag", "tasks must be a list of strings such as ['hellaswag'], not"),
        ("limit", 2.0, "limit must be an integer, not 2.0 (float)"),
        ("stride", "8", "stride must be an integer, not '8' (str)"),
        ("stride", 99, "stride must be between 1 and the model's context of 8, not 99"),
        ("detokenize", "no", "detokenize must be True or False, not 'no' (str)"),
        ("ema", 1, "ema must be True or False, not 1 (int)"),
        ("context_length", 0, "context_length must be at least 1, not 0"),
        ("context_length", 9, "context_length=9 exceeds the model's context of 8, beyond which"),
        ("texts", ["a"], "texts must be a mapping such as {'letters': 'letters.txt'}, not ['a']"),
        ("texts", {}, "there is nothing to score: name tasks, or texts such as"),
        ("out", "gs://bucket/out", "out gs://bucket/out must be on a disk"),
        ("model", 5, "model must be a path, not 5 (int)"),
    ],
)
def test_messages_of_evaluate(folder: Path, name: str, value: Any, message: str) -> None:
    defaults = {"model": folder / "run", "texts": {"text": folder / "text.txt"}}
    assert message in _outcome(gpt2_jax.evaluate, **(defaults | {name: value}))


def test_numbers_of_numpy_are_numbers(model: Any) -> None:
    options = SamplingOptions(np.float32(0.5), np.int64(3), np.float64(1))  # pyright: ignore
    assert options == SamplingOptions(0.5, 3, 1.0)
    one = model.generate("a", max_new_tokens=np.int32(3), options=options, seed=np.uint32(7))
    assert one == model.generate("a", max_new_tokens=3, options=options, seed=7)
    assert from_dict({"train": {"seed": np.int64(3)}}).train.seed == 3
    assert from_dict({"model": {"dropout": np.float32(0.5)}}).model.dropout == 0.5


def test_a_number_of_jax_is_no_list(model: Any) -> None:
    for name, message in {"prompt": "a string or a list of token ids", "stop": "a list of"}.items():
        problem = _outcome(model.generate, **{name: jnp.int32(3)})
        assert problem.startswith(f"{name} must be {message}") and "Array(3" in problem


def test_a_config_that_was_not_checked_is_checked_by_train(tmp_path: Path) -> None:
    wrong = dataclasses.replace(Config(), train=dataclasses.replace(Config().train, batch_size="8"))
    message = _outcome(gpt2_jax.train, wrong, tmp_path / "run")
    assert "train.batch_size must be an integer, not '8'" in message


def test_stream_checks_its_arguments_at_once(model: Any) -> None:
    with pytest.raises(UserError, match="seed must be an integer"):
        model.stream("a", seed="0")
