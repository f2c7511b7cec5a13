"""Tests mistakes in config files, and the parameters that a file may take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, default, load_config
from gpt2_jax.errors import UserError
from tests.config.lines import HEADER, get_knob, line_of, mistake


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
    path.write_text(HEADER + body, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    line_shown = line_of(error, path)
    assert f"{path}, line {line}:" in line_shown
    assert "\\n" not in line_shown, "a line break shown as an escape is no better than one"
    # ml_collections' own wording of a hint would do as well.
    assert message in re.sub(r'Did you mean "(\w+)"', r"did you mean '\1'", line_shown)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.model.num_layers = 'three'", "model.num_layers must be an integer, not 'three'"),
        ("c.model.num_layers = 7.5", "model.num_layers must be an integer, not 7.5"),
        ("c.compute.precision = 3", "compute.precision must be a string, not 3"),
        ("c['train']['total_steps'] = 1e4", "train.total_steps must be an integer, not 10000.0"),
        ("c.train.update(init_seed='x')", "train.init_seed must be an integer, not 'x'"),
        ("c.model.tie_embeddings = 1", "model.tie_embeddings must be true or false, not 1"),
        ("c.model = 3", "config section 'model' must hold knobs, not 3"),
        ("del c.model.num_layers", "a knob or a section of the config cannot be deleted"),
        ("c.train.seed = c['foo']", "the config has no 'foo' there"),
        ("return {}['x']", "KeyError: 'x'"),
        ("open('/nowhere/file')", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("assert False", "AssertionError"),
    ],
)
def test_a_mistake_in_a_file_is_in_the_words_of_the_command_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(f"{HEADER}    {line}\n    return c\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert line_of(error, path).startswith(f"{path}, line 5: {message}")


def test_a_wrong_value_without_a_line_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(HEADER + "    c.model.num_layers = True\n    return c\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"^{path}: model\.num_layers must be an integer, not True"
    ):
        load_config(path)
    assert load_config(path, ["model.num_layers=12"]).model.num_layers == 12


def test_a_file_out_of_range_names_the_knob(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(HEADER + "    c.model.num_layers = 0\n    return c\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.num_layers must be at least 1, not 0"):
        load_config(path)


def test_a_file_without_get_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert line_of(error, path) == f"{path} defines no get_config()"


@pytest.mark.parametrize("result", ["None", "{}", "c.to_dict()", "c.model"])
def test_get_config_must_return_the_config(tmp_path: Path, result: str) -> None:
    path = tmp_path / "other.py"
    path.write_text(HEADER + f"    return {result}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert "config" in line_of(error, path)


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
    path.write_text(HEADER + "    raise KeyboardInterrupt\n", encoding="utf-8")
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
    assert len(line_of(error, path)) <= 400


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
    assert str(path) in line_of(error, path)


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
    assert f"did you mean {key!r}?" in line_of(error, plain)
    section, name = moved.split(".")
    assert f"did you mean {key!r}?" in mistake(**{section: {name: "x"}})


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
    assert tuple(get_knob(config, key) for key in keys) == values
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
    assert message in line_of(error, with_parameters)


def test_a_file_without_parameters_takes_no_argument(plain: Path) -> None:
    with pytest.raises(UserError, match="takes no argument, not 'layers=3'"):
        load_config(f"{plain}:layers=3")
    plain.write_text("def get_config(layers): pass\n", encoding="utf-8")
    with pytest.raises(UserError, match="parameter 'layers' needs a default value"):
        load_config(f"{plain}:layers=3")


def test_a_config_file_gets_the_same_type_as_default(plain: Path) -> None:
    assert isinstance(default(), ml_collections.ConfigDict)
    assert load_config(plain) == Config()
    assert config_lib.load_config(str(plain)) == Config()


def test_an_argument_may_be_longer_than_the_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "named.py"
    text = "def get_config(name='x'):\n    c = default()\n    c.data.path = name\n    return c\n"
    path.write_text("from gpt2_jax.config import default\n" + text, encoding="utf-8")
    assert load_config(f"{path}:name={'v' * 300}").data.path == "v" * 300
    with pytest.raises(UserError, match=r"^--config: cannot use '.*: File name too long"):
        load_config("v" * 300 + ".py")
    with pytest.raises(UserError, match=r"^path is empty"):
        load_config("")


def test_an_override_spelled_as_a_flag_is_told_the_right_spelling(plain: Path) -> None:
    with pytest.raises(UserError) as error:
        load_config(plain, ["--config.train.total_steps=3"])
    assert str(error.value) == (
        "overrides: write 'train.total_steps=3', not '--config.train.total_steps=3'"
    )
