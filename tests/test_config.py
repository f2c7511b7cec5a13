"""The config: defaults, overrides, checks, resuming, and one short line for each mistake."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, check_resume, default, from_dict, knobs, load_config, to_dict
from gpt2_jax.errors import UserError

_KNOBS = {knob.key: knob for knob in knobs()}
_HEADER = "from gpt2_jax.config import default\n\ndef get_config():\n    c = default()\n"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A config file that changes nothing."""
    path = tmp_path / "plain.py"
    path.write_text(_HEADER + "    return c\n", encoding="utf-8")
    return path


def _get(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _line(error: pytest.ExceptionInfo[UserError], path: Path | None = None) -> str:
    """Returns the message of a mistake, which must be a short line apart from the file's name."""
    message = str(error.value)
    assert "\n" not in message
    # Temporary folders have long names; those of users do not.
    assert len(message.replace(str(path), "config.py")) <= 200, message
    return message


def _mistake(**sections: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        from_dict(sections)
    return _line(error)


# Defaults.


def test_default_holds_every_knob_at_its_default() -> None:
    values = default()
    assert {f"{s}.{name}" for s, entries in values.items() for name in entries} == _KNOBS.keys()
    assert from_dict(values.to_dict()) == Config()


def test_default_is_locked_and_type_safe() -> None:
    values = default()
    with pytest.raises(AttributeError):
        values.model.num_layer = 3
    with pytest.raises((AttributeError, KeyError)):
        values.modle = {}
    with pytest.raises(TypeError):
        values.model.num_layers = "3"
    with pytest.raises(TypeError):
        values.data.path = 3
    values.data.path = "somewhere"
    values.schedule.learning_rate = 1  # an integer is a number
    assert values.schedule.learning_rate == 1.0


def test_defaults_are_not_shared_between_configs() -> None:
    default().model.num_layers = 3
    assert default().model.num_layers == Config().model.num_layers


def test_every_knob_is_documented_and_has_a_plain_type() -> None:
    for knob in _KNOBS.values():
        assert knob.help.strip(), knob.key
        assert knob.type in (int, float, str, bool), knob.key
        assert "\n" not in knob.help
        if knob.default is None:
            assert knob.optional, knob.key
        else:
            assert type(knob.default) is knob.type, knob.key


def test_every_section_is_documented() -> None:
    for field in dataclasses.fields(Config):
        assert type(getattr(Config(), field.name)).__doc__, field.name


def test_config_is_immutable_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.num_layers = 3  # type: ignore[misc]
    assert hash(Config()) == hash(from_dict({}))


def test_padded_vocabulary_is_the_next_multiple() -> None:
    assert from_dict({"model": {"vocab_size": 50257}}).model.padded_vocab_size == 50304
    exact = from_dict({"model": {"vocab_size": 256, "vocab_multiple": 128}})
    assert exact.model.padded_vocab_size == 256
    assert from_dict({"model": {"vocab_size": 65, "vocab_multiple": 1}}).model.head_dim == 64


# Conversion.


def test_from_dict_is_the_inverse_of_to_dict() -> None:
    config = from_dict(
        {
            "model": {"num_layers": 3, "num_heads": 2, "d_model": 6, "dropout": 0.5},
            "data": {"path": "x", "tokenizer": "byte"},
            "log": {"tensorboard": False},
        }
    )
    assert from_dict(to_dict(config)) == config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(to_dict(Config())) == Config()


def test_an_integer_is_accepted_for_a_float_knob() -> None:
    value = from_dict({"optimizer": {"grad_clip": 2}}).optimizer.grad_clip
    assert value == 2.0
    assert type(value) is float


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.batch_size=1_024", 1024),
        ("train.seed=7", 7),
        ("schedule.learning_rate=3e-4", 3e-4),
        ("optimizer.grad_clip=2", 2.0),
        ("log.tensorboard=false", False),
        ("log.tensorboard=0", False),
        ("log.tensorboard=True", True),
        ("log.tensorboard=1", True),
        ("data.path=a/b=c d", "a/b=c d"),
        ("data.path=none", None),
        ("data.path=None", None),
        ("data.path=null", None),
        ("data.path=", None),
        ("train.init_from=runs/x", "runs/x"),
        ("compute.dtype=float32", "float32"),
        ("mesh.data=-1", -1),
        ("eval.batches=-1", -1),
    ],
)
def test_overrides_parse_by_the_type_of_their_knob(plain: Path, override: str, value: Any) -> None:
    got = _get(load_config(plain, [override]), override.partition("=")[0])
    assert got == value
    assert type(got) is type(value)


def test_later_overrides_win_and_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(_HEADER + "    c.train.seed = 1\n    return c\n", encoding="utf-8")
    assert load_config(path).train.seed == 1
    assert load_config(path, ["train.seed=2", "train.seed=3"]).train.seed == 3


def test_none_set_in_the_file_of_an_optional_knob_can_be_overridden(plain: Path) -> None:
    assert load_config(plain).data.path is None
    assert load_config(plain, ["data.path=x"]).data.path == "x"


def test_overrides_are_checked_together_not_one_by_one(plain: Path) -> None:
    config = load_config(plain, ["model.d_model=30", "model.num_heads=5"])
    assert config.model.head_dim == 6


# Mistakes in values.


def test_unknown_names_get_a_hint() -> None:
    assert "did you mean 'model'?" in _mistake(modle={})
    assert "did you mean 'model.num_layers'?" in _mistake(model={"num_layer": 3})
    assert "did you mean 'schedule.learning_rate'?" in _mistake(schedule={"learning_rat": 1.0})
    assert "'mesh'" in _mistake(mesh=3)  # type: ignore[arg-type]


def test_a_name_like_no_other_gets_the_knobs_of_its_section() -> None:
    message = _mistake(checkpoint={"xyzzy": 3})
    assert "did you mean" not in message
    assert "every, every_minutes, keep" in message


def test_a_knob_of_another_section_is_hinted_at() -> None:
    assert "did you mean 'train.batch_size'?" in _mistake(data={"batch_size": 3})
    assert "did you mean 'schedule.learning_rate'?" in _mistake(optimizer={"learning_rate": 1.0})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layer=3", "did you mean 'model.num_layers'?"),
        ("modle.num_layers=3", "did you mean 'model.num_layers'?"),
        ("num_layers=3", "SECTION.KEY"),
        ("model=3", "SECTION.KEY"),
        ("train.seed", "--config.train.seed=VALUE"),
        ("model.num_layers=two", "model.num_layers must be an integer, not 'two'"),
        ("model.num_layers=2.5", "model.num_layers must be an integer, not '2.5'"),
        ("model.num_layers=none", "model.num_layers must be an integer, not 'none'"),
        ("model.num_layers=", "model.num_layers must be an integer"),
        ("schedule.learning_rate=fast", "schedule.learning_rate must be a number, not 'fast'"),
        ("schedule.learning_rate=nan", "schedule.learning_rate must be finite"),
        ("optimizer.grad_clip=inf", "optimizer.grad_clip must be finite"),
        ("log.tensorboard=maybe", "log.tensorboard must be true or false, not 'maybe'"),
        ("compute.dtype=bfloat61", "did you mean 'bfloat16'?"),
        ("data.tokenizer=bytes", "did you mean 'byte'?"),
    ],
)
def test_a_wrong_override_names_the_knob_and_the_remedy(
    plain: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_config(plain, [override])
    assert message in _line(error, plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.num_layers", 2.0),
        ("model.num_layers", "2"),
        ("model.num_layers", True),
        ("model.num_layers", None),
        ("model.dropout", "0.1"),
        ("model.dropout", True),
        ("compute.dtype", 32),
        ("log.tensorboard", 1),
        ("log.tensorboard", "true"),
        ("data.path", 3),
        ("train.seed", [1]),
    ],
)
def test_a_wrong_type_names_knob_kind_and_value(key: str, value: Any) -> None:
    section, name = key.split(".")
    message = _mistake(**{section: {name: value}})
    kind = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    assert message == f"{key} must be {kind[_KNOBS[key].type]}, not {value!r}"


@pytest.mark.parametrize("key", [key for key, knob in _KNOBS.items() if knob.low is not None])
def test_values_below_the_lowest_are_refused(key: str) -> None:
    knob = _KNOBS[key]
    assert knob.low is not None
    section, name = key.split(".")
    for value in (knob.type(knob.low - 1), knob.type(-1000)):
        message = _mistake(**{section: {name: value}})
        assert message == f"{key} must be at least {knob.low:g}, not {value!r}"


_HAVE_HIGHEST = [
    key for key, knob in _KNOBS.items() if knob.type in (int, float) and knob.below is None
]


@pytest.mark.parametrize("key", _HAVE_HIGHEST)
def test_values_above_the_highest_are_refused(key: str) -> None:
    knob = _KNOBS[key]
    section, name = key.split(".")
    value = knob.type(knob.high + 1)
    assert _mistake(**{section: {name: value}}) == f"{key} must be at most {knob.high}, not {value}"
    # What has no float, or not even digits that Python would show.
    for power in (400, 5000):
        assert f"{key} must be at most" in _mistake(**{section: {name: 10**power}})


@pytest.mark.parametrize("key", [key for key, knob in _KNOBS.items() if knob.below is not None])
def test_values_at_the_open_end_are_refused(key: str) -> None:
    knob = _KNOBS[key]
    assert knob.below is not None
    section, name = key.split(".")
    value = knob.type(knob.below)
    assert (
        _mistake(**{section: {name: value}}) == f"{key} must be below {knob.below:g}, not {value}"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_must_be_finite(value: float) -> None:
    for key, knob in _KNOBS.items():
        if knob.type is float:
            section, name = key.split(".")
            assert f"{key} must be" in _mistake(**{section: {name: value}})


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"model": {"d_model": 30, "num_heads": 4}}, ["model.d_model=30", "model.num_heads=4"]),
        (
            {"model": {"num_layers": 3}, "compute": {"scan_unroll": 2}},
            ["compute.scan_unroll=2", "model.num_layers=3"],
        ),
        (
            {"model": {"context_length": 64}, "compute": {"loss_chunk": 48}},
            ["compute.loss_chunk=48", "model.context_length=64"],
        ),
        (
            {"train": {"batch_size": 10, "accumulation_steps": 4}},
            ["train.batch_size=10", "train.accumulation_steps=4"],
        ),
        (
            {"schedule": {"learning_rate": 1e-5, "min_learning_rate": 1e-4}},
            ["schedule.min_learning_rate=0.0001", "schedule.learning_rate=1e-05"],
        ),
        (
            {"schedule": {"warmup_steps": 11}, "train": {"total_steps": 10}},
            ["schedule.warmup_steps=11", "train.total_steps=10"],
        ),
        ({"mesh": {"data": -1, "fsdp": -1}}, ["mesh", "-1"]),
        ({"mesh": {"tensor": 0}}, ["mesh", "0"]),
        (
            {"model": {"vocab_size": 2**31 - 1, "vocab_multiple": 128}},
            ["model.vocab_size=2147483647", "model.vocab_multiple=128"],
        ),
    ],
)
def test_knobs_that_contradict_each_other_are_both_named(
    sections: dict[str, dict[str, Any]], names: list[str]
) -> None:
    message = _mistake(**sections)
    assert all(name in message for name in names), message


def test_a_loss_chunk_longer_than_the_context_is_the_whole_context() -> None:
    for chunk in (128, 0):
        config = from_dict({"model": {"context_length": 50}, "compute": {"loss_chunk": chunk}})
        assert config.compute.loss_chunk == chunk


# Mistakes in files.


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("    c.model.num_layer = 3\n    return c\n", 5, "did you mean 'num_layers'"),
        ("    c.modle.num_layers = 3\n    return c\n", 5, "did you mean 'model'"),
        ("    c.scheduel = 3\n    return c\n", 5, "did you mean 'schedule'"),
        ("    c.train.seed = c.train.sead\n    return c\n", 5, "did you mean 'seed'"),
        ("    c['train']['sead'] = 3\n    return c\n", 5, "did you mean 'seed'"),
        ("\n    c.model.num_layers = '3'\n    return c\n", 6, "num_layers"),
        ("    c.model.num_layers = 2.5\n    return c\n", 5, "num_layers"),
        ("    c.model.num_layers = \n    return c\n", 5, ""),
        ("    return 1 / 0\n", 5, "division by zero"),
        ("    raise ValueError('first\\nsecond')\n", 5, "first second"),
        ("    import sys; sys.exit(0)\n", 5, "SystemExit(0)"),
        ("    raise BaseException('all of it')\n", 5, "all of it"),
        ("    return helper(c)\n\ndef helper(c):\n    return c.model.oops\n", 8, "oops"),
    ],
)
def test_a_broken_file_is_named_with_the_line(
    tmp_path: Path, body: str, line: int, message: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(_HEADER + body, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    line_shown = _line(error, path)
    assert f"{path}, line {line}:" in line_shown
    assert "\\n" not in line_shown, "a line break shown as an escape is no better than one"
    # ml_collections' own wording of a hint would do as well.
    assert message in re.sub(r'Did you mean "(\w+)"', r"did you mean '\1'", line_shown)


def test_a_wrong_type_in_a_file_says_which_is_right(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(_HEADER + "    c.train.seed = 'x'\n    return c\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert "seed" in _line(error, path)
    assert "int" in str(error.value) or "an integer" in str(error.value)


def test_a_file_out_of_range_names_the_knob(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(_HEADER + "    c.model.num_layers = 0\n    return c\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.num_layers must be at least 1, not 0"):
        load_config(path)


def test_a_file_without_get_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert _line(error, path) == f"{path} defines no get_config()"


@pytest.mark.parametrize("result", ["None", "{}", "c.to_dict()", "c.model"])
def test_get_config_must_return_the_config(tmp_path: Path, result: str) -> None:
    path = tmp_path / "other.py"
    path.write_text(_HEADER + f"    return {result}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert "config" in _line(error, path)


def test_a_config_dict_made_without_default_is_checked_as_strictly(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    text = "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({})\n"
    path.write_text(text.replace("{}", "{'model': {'num_layer': 2}}"), encoding="utf-8")
    with pytest.raises(UserError, match=r"did you mean 'model\.num_layers'"):
        load_config(path)
    path.write_text(text.replace("{}", "{'model': {'num_layers': 2}}"), encoding="utf-8")
    assert load_config(path).model.num_layers == 2


def test_ctrl_c_in_a_config_file_is_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(_HEADER + "    raise KeyboardInterrupt\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        load_config(path)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("{1: 2}", "config has no section 1"),
        ("{'model': {1: 2, 'a': 3}}", "own.py: "),
        ("{'model': 'x' * 10**6}", "section 'model' must hold knobs, not 'xxx"),
        ("{'data': {'path': 10**5000}}", "data.path must be a string, not <int>"),
        ("{'data': {'path': [0] * 10**6}}", "data.path must be a string, not [0, 0"),
        ("{'x' * 10**6: {}}", "config has no section 'xxx"),
        ("{'data': {'x' * 10**6: 1}}", "unknown config key 'data.xxx"),
        ("{'data': {'tokenizer': 'x' * 10**6}}", "data.tokenizer must be one of"),
    ],
)
def test_a_value_too_long_for_a_message_is_cut_short(
    tmp_path: Path, result: str, message: str
) -> None:
    path = tmp_path / "own.py"
    lines = "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
    path.write_text(f"{lines}    return ConfigDict({result})\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert message in str(error.value)
    assert len(_line(error)) <= 400


@pytest.mark.parametrize("weight", ["1e999999999", "1e-999999999", "1/0", "nan", "0", "-1", "1 2"])
def test_the_weights_of_a_mixture_are_plain_digits(weight: str) -> None:
    assert "is not FOLDER=WEIGHT" in _mistake(data={"mixture": f"a=1,b={weight}"})


def test_a_missing_file_gets_a_hint(plain: Path) -> None:
    with pytest.raises(UserError) as error:
        load_config(plain.with_name("plane.py"))
    message = str(error.value).replace(str(plain.parent), "")
    assert message == "no config file /plane.py; did you mean '/plain.py'?"
    with pytest.raises(UserError, match="no config file"):
        load_config("no/such/folder/x.py")


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "binary.py"
    path.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert str(path) in _line(error, path)


@pytest.mark.parametrize(
    ("moved", "key"),
    [
        ("model.dtype", "compute.dtype"),
        ("model.remat", "compute.remat"),
        ("model.loss_chunk", "compute.loss_chunk"),
        ("model.prng", "compute.prng"),
        ("train.total_step", "train.total_steps"),
    ],
)
def test_a_moved_key_is_an_error_with_its_new_name(plain: Path, moved: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(plain, [f"{moved}=x"])
    assert f"did you mean {key!r}?" in _line(error, plain)
    section, name = moved.split(".")
    assert f"did you mean {key!r}?" in _mistake(**{section: {name: "x"}})


# Parameters of a file.

_WITH_PARAMETERS = """
from gpt2_jax.config import default

def get_config(layers=2, rate=1e-3, tied=True, name="byte"):
    c = default()
    c.model.num_layers = layers
    c.schedule.learning_rate = rate
    c.model.tie_embeddings = tied
    c.data.tokenizer = name
    return c
"""


@pytest.fixture
def with_parameters(tmp_path: Path) -> Path:
    path = tmp_path / "sized.py"
    path.write_text(_WITH_PARAMETERS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("", (2, 1e-3, True, "byte")),
        (":", (2, 1e-3, True, "byte")),
        (":layers=5", (5, 1e-3, True, "byte")),
        (":layers=4,rate=3e-4, tied=false,name=gpt2", (4, 3e-4, False, "gpt2")),
        (":tied=1,rate=1", (2, 1.0, True, "byte")),
    ],
)
def test_arguments_after_the_file_are_parameters_of_get_config(
    with_parameters: Path, argument: str, values: tuple[Any, ...]
) -> None:
    config = load_config(f"{with_parameters}{argument}")
    keys = ("model.num_layers", "schedule.learning_rate", "model.tie_embeddings", "data.tokenizer")
    assert tuple(_get(config, key) for key in keys) == values
    overridden = load_config(f"{with_parameters}{argument}", ["model.num_layers=7"])
    assert overridden.model.num_layers == 7


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (":layer=3", "did you mean 'layers'?"),
        (":layers", "takes layers=2, rate=0.001, tied=True, name=byte, not 'layers'"),
        (":layers=two", "layers must be of the type int, not 'two'"),
        (":layers=2.5", "layers must be of the type int, not '2.5'"),
        (":tied=maybe", "tied must be of the type bool, not 'maybe'"),
        (":layers=0", "model.num_layers must be at least 1, not 0"),
        (":name=bytes", "did you mean 'byte'?"),
    ],
)
def test_wrong_arguments_are_named(with_parameters: Path, argument: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(f"{with_parameters}{argument}")
    assert message in _line(error, with_parameters)


def test_a_file_without_parameters_takes_no_argument(plain: Path) -> None:
    with pytest.raises(UserError, match="takes no argument, not 'layers=3'"):
        load_config(f"{plain}:layers=3")
    plain.write_text("def get_config(layers): pass\n", encoding="utf-8")
    with pytest.raises(UserError, match="parameter 'layers' needs a default value"):
        load_config(f"{plain}:layers=3")


# The same function or another.


def test_models_differ_by_what_changes_their_function() -> None:
    def model(**values: Any) -> config_lib.ModelConfig:
        return from_dict({"model": {"vocab_size": 61, **values}}).model

    same = model(dropout=0.5, vocab_multiple=8, mlp_dim=4 * 768)
    assert model().differences(same) == same.differences(model()) == {}
    other = model(mlp_dim=64, norm="rms", dropout=0.5)
    assert model().differences(other) == {"mlp_dim": (3072, 64), "norm": ("layer", "rms")}
    assert model().differences(model(vocab_size=62)) == {"vocab_size": (61, 62)}


# Resuming.


def _changed(config: Config, key: str) -> Config:
    """Returns the config with another valid value of one knob."""
    knob, value = _KNOBS[key], _get(config, key)
    candidates: list[Any] = list(knob.choices or ())
    if knob.type is bool:
        candidates = [not value]
    elif knob.type is int:
        candidates += [value * 2, value + 1, value - 1, 1] if value is not None else [64]
    elif knob.type is float:
        candidates += [value / 2, 0.5]
    elif not knob.choices:
        candidates = ["other", "other=1"]
    for other in candidates:
        if other != value:
            section, name = key.split(".")
            values = to_dict(config)
            values[section][name] = other
            try:
                return from_dict(values)
            except UserError:
                continue
    raise AssertionError(f"no other value for {key} is valid")


def _may_change(key: str) -> bool:
    """Returns whether the knob may change on resume."""
    section = key.partition(".")[0]
    allowed = ("mesh", "log", "eval", "checkpoint", "compute")
    return (section in allowed and key != "compute.prng") or key in (
        "train.accumulation_steps",
        "train.total_steps",
        "train.init_from",
        "train.init_resize",
        "train.max_bad_steps",
        "train.hang_timeout",
    )


@pytest.mark.parametrize(
    "key",
    [key for key, knob in _KNOBS.items() if not (knob.choices and len(knob.choices) == 1)],
)
def test_only_what_the_run_computes_is_fixed_on_resume(key: str) -> None:
    saved = from_dict({"model": {"num_layers": 4}, "train": {"batch_size": 64}})
    new = _changed(saved, key)
    if _may_change(key):
        check_resume(saved, new, "w")
        return
    with pytest.raises(UserError) as error:
        check_resume(saved, new, "w")
    assert key in _line(error)
    assert f"{_get(saved, key)!r} -> {_get(new, key)!r}" in str(error.value)
    assert "w holds a run with another config" in str(error.value)


def test_every_changed_field_is_named_at_once() -> None:
    saved = Config()
    new = from_dict({"model": {"num_layers": 6}, "train": {"seed": 1, "batch_size": 256}})
    with pytest.raises(UserError) as error:
        check_resume(saved, new, "w")
    for change in ("num_layers (12 -> 6)", "train.seed (0 -> 1)", "train.batch_size (512 -> 256)"):
        assert change in str(error.value)


@pytest.mark.parametrize(
    ("key", "saved", "new", "same"),
    [
        ("mixture", "a=1,b=1", "a=0.5, b=0.5", True),
        ("mixture", "x/a=0.75,b=0.25", "./x//a/=3,b=1", True),
        ("mixture", "a=1,b=1", "a=1,b=2", False),
        ("mixture", "a=1,b=1", "b=1,a=1", False),  # other windows in another order
        ("path", "runs/data/a", "./runs/data/a/", True),
        ("path", "runs/data/a", "runs/data/b", False),
    ],
)
def test_data_named_in_another_way_is_the_same_on_resume(
    key: str, saved: str, new: str, same: bool
) -> None:
    before, after = (from_dict({"data": {key: value}}) for value in (saved, new))
    if same:
        check_resume(before, after, "w")
        return
    with pytest.raises(UserError) as error:
        check_resume(before, after, "w")
    assert f"data.{key} ({saved!r} -> {new!r})" in str(error.value)


def test_total_steps_may_grow_but_not_shrink() -> None:
    saved = from_dict({"train": {"total_steps": 10_000}})
    check_resume(saved, saved, "w")
    check_resume(saved, from_dict({"train": {"total_steps": 10_001}}), "w")
    with pytest.raises(
        UserError, match=r"train\.total_steps .* least 10000, .* not 9999; .*stop_at_step"
    ):
        check_resume(saved, from_dict({"train": {"total_steps": 9_999}}), "w")


def test_the_config_imports_no_jax() -> None:
    code = (
        "import sys, gpt2_jax.config; gpt2_jax.config.from_dict({}); gpt2_jax.config.default();"
        "print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_config_file_gets_the_same_type_as_default(plain: Path) -> None:
    assert isinstance(default(), ml_collections.ConfigDict)
    assert load_config(plain) == Config()
    assert config_lib.load_config(str(plain)) == Config()
