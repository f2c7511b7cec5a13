"""Tests defaults, their documentation, conversion, overrides, and when two models differ."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, DataConfig, default, from_dict, load_config, to_dict
from gpt2_jax.errors import UserError
from tests.config.lines import HEADER, KNOBS, get_knob


def test_default_holds_every_knob_at_its_default() -> None:
    values = default()
    assert {f"{s}.{name}" for s, entries in values.items() for name in entries} == KNOBS.keys()
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
    for knob in KNOBS.values():
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
    got = get_knob(load_config(plain, [override]), override.partition("=")[0])
    assert got == value
    assert type(got) is type(value)


def test_later_overrides_win_and_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(HEADER + "    c.train.seed = 1\n    return c\n", encoding="utf-8")
    assert load_config(path).train.seed == 1
    assert load_config(path, ["train.seed=2", "train.seed=3"]).train.seed == 3


def test_none_set_in_the_file_of_an_optional_knob_can_be_overridden(plain: Path) -> None:
    assert load_config(plain).data.path is None
    assert load_config(plain, ["data.path=x"]).data.path == "x"


def test_overrides_are_checked_together_not_one_by_one(plain: Path) -> None:
    config = load_config(plain, ["model.d_model=30", "model.num_heads=5"])
    assert config.model.head_dim == 6


def test_no_data_at_all_is_refused():
    with pytest.raises(UserError, match=r"data\.path is not set"):
        _ = DataConfig().weights


def test_models_differ_by_what_changes_their_function() -> None:
    def model(**values: Any) -> config_lib.ModelConfig:
        return from_dict({"model": {"vocab_size": 61, **values}}).model

    same = model(dropout=0.5, vocab_multiple=8, mlp_dim=4 * 768)
    assert model().differences(same) == same.differences(model()) == {}
    other = model(mlp_dim=64, norm="rms", dropout=0.5)
    assert model().differences(other) == {"mlp_dim": (3072, 64), "norm": ("layer", "rms")}
    assert model().differences(model(vocab_size=62)) == {"vocab_size": (61, 62)}


def test_the_config_imports_no_jax() -> None:
    code = (
        "import sys, gpt2_jax.config; gpt2_jax.config.from_dict({}); gpt2_jax.config.default();"
        "print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
