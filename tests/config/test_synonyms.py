"""The names of other programs lead to the knobs that mean the same."""

from __future__ import annotations

import re

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import knobs, load_config
from gpt2_jax.config.synonyms import ELSEWHERE, SYNONYMS, VALUES
from gpt2_jax.errors import UserError
from tests.config.lines import HEADER


def test_every_synonym_names_a_knob_and_is_none():
    keys = {knob.key for knob in knobs()}
    assert set(SYNONYMS.values()) <= keys
    assert not {*SYNONYMS, *ELSEWHERE} & {key.partition(".")[2] for key in keys}


def test_every_value_from_elsewhere_is_answered_with_one_of_the_choices():
    by_key = {knob.key: knob for knob in knobs()}
    for key, values in VALUES.items():
        knob = by_key[key]
        allowed = {*knob.choices, *(["none"] if knob.optional else [])}
        assert {text.partition(",")[0] for text in values.values()} <= allowed
        assert not {*values} & {*knob.choices}
        assert all(value == value.lower() for value in values)


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("max_iters", "train.total_steps"),
        ("n_layer", "model.num_layers"),
        ("bf16", "compute.dtype"),
    ],
)
def test_a_flag_an_override_and_a_file_are_all_answered_with_the_knob(name, knob, tmp_path, capsys):
    command = ["train", "--config", "quickstart", "--workdir", str(tmp_path / "run")]
    for flag in (f"--{name}", f"--config.train.{name}", f"--config.{name}"):
        assert main([*command, f"{flag}=3"]) == 2
        assert re.search(rf"did you mean '?(--config\.)?{knob}\b", capsys.readouterr().err)
    file = tmp_path / "mine.py"
    file.write_text(
        "from gpt2_jax.config import default\n\n\ndef get_config():\n    c = default()\n"
        f"    c.train.{name} = 3\n    return c\n"
    )
    with pytest.raises(UserError, match=f"did you mean '{knob}'"):
        load_config(file)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_no_knob_here_is_answered_with_what_it_is(name, tmp_path, capsys):
    command = ["train", "--config", "quickstart", "--workdir", str(tmp_path / "run")]
    for flag in (f"--{name}", f"--config.train.{name}", f"--config.{name}"):
        assert main([*command, f"{flag}=x"]) == 2
        assert f"; did you mean {ELSEWHERE[name]}?" in capsys.readouterr().err
    file = tmp_path / "mine.py"
    file.write_text(f"{HEADER}    c.{name} = 3\n    return c\n")
    with pytest.raises(UserError, match=f"did you mean {ELSEWHERE[name]}"):
        load_config(file)


def test_a_value_that_looks_like_a_flag_is_explained(capsys):
    assert main(["sample", "--model", "x", "--prompt", "-ab"]) == 2
    assert "write --prompt=-ab (see" in capsys.readouterr().err
    assert main(["sample", "--model", "x", "--prompt", "--hello"]) == 2
    assert capsys.readouterr().err == (
        "error: argument --prompt: expected one argument; for a value that begins with -, write "
        "--prompt=--hello (see gpt2-jax sample --help)\n"
    )
    assert main(["sample", "--model", "x", "--json", "--hello"]) == 2
    assert "unknown flag --hello" in capsys.readouterr().err
    assert main(["sample", "--model"]) == 2
    assert "write" not in capsys.readouterr().err


def test_a_run_shorter_than_its_warmup_is_told_a_warmup_that_fits():
    with pytest.raises(UserError, match=r"--config\.schedule\.warmup_steps=2$"):
        load_config("quickstart", ["train.total_steps=20"])
    load_config("quickstart", ["train.total_steps=20", "schedule.warmup_steps=2"])
