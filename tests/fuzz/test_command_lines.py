"""Tests any words after every verb: they are refused in one line or succeed; nothing is written."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax import config as config_lib
from gpt2_jax.cli import plan as cli_plan
from gpt2_jax.cli.main import VERBS
from tests import cache_options
from tests.fuzz.commands import cases, ends_as_documented, snapshot, words
from tests.runs import CONFIG


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes a folder with what commands read; no verb does its work or uses the network."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(CONFIG.format(data="data"), encoding="utf-8")
    Path("text.txt").write_text("To be, or not to be", encoding="utf-8")
    Path("run", "checkpoints").mkdir(parents=True)
    Path("empty").mkdir()
    for hub in ("huggingface_hub", "datasets"):
        monkeypatch.setitem(sys.modules, hub, None)
    monkeypatch.setattr("gpt2_jax.experiment.train", lambda *_, **__: {})
    monkeypatch.setattr("gpt2_jax.experiment.dry_run", lambda _: _SIZES)
    monkeypatch.setattr("gpt2_jax.cli.prepare.prepare", lambda *_, **__: _SUMMARY)
    monkeypatch.setattr("gpt2_jax.cli.doctor.examine", lambda: _FOUND)
    monkeypatch.setattr(cli_plan, "_use_no_devices", lambda: None)
    monkeypatch.setattr(cli_plan, "libtpu_installed", lambda: False)
    with cache_options.restored():
        yield tmp_path


_SIZES: dict[str, Any] = {
    **{"parameters": 1, "tokens_per_step": 1, "total_tokens": 1, "flops_per_step": 1.0},
    **{"mesh": {"data": 1}, "layout": "data 1", "memory_bytes": {"parameters": 1}},
    **{"dtype": "float32", "attention": "cpu"},
}
_SUMMARY = {
    **{"out": "o", "tokenizer": "byte", "vocab_size": 257, "seconds": 0.0},
    **{"splits": {}, "skipped_rows": 0, "already_prepared": False},
}
_FOUND: dict[str, Any] = {
    **{"versions": {}, "devices": [], "fast_paths": {}, "extras": {}, "vocabulary": {}},
    **{"machine": {}, "problems": []},
}


def _flags(verb: str) -> list[str]:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"gpt2_jax.cli.{verb}").add_arguments(parser)
    return [*parser._option_string_actions, "--config.model.num_layers"]


_FLAGS = {verb: _flags(verb) for verb in VERBS}
_THINGS = ("tiny.py", "text.txt", "run", "empty", ".", "missing", "byte", "hellaswag", "h100", "8")
_values = words() | st.sampled_from(_THINGS)


def _near(draw: Any, flag: str) -> str:
    """Returns a flag with a typo, or without."""
    at = draw(st.integers(0, len(flag)))
    change = draw(st.sampled_from(["none", "none", "drop", "add", "upper", "dash", "short"]))
    return {
        "none": flag,
        "drop": flag[:at] + flag[at + 1 :],
        "add": flag[:at] + draw(words()) + flag[at:],
        "upper": flag.upper(),
        "dash": flag.replace("_", "-"),
        "short": flag[1:],
    }[change]


@st.composite
def _lines(draw: Any, verb: str) -> list[str]:
    line: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            line.append(_near(draw, draw(st.sampled_from(_FLAGS[verb]))))
            if draw(st.booleans()):
                line[-1] += "=" + draw(_values)
        else:
            line.append(draw(_values))
    return [word for word in line if "/" not in word and word != "--debug"]


def _ends_well(folder: Path, argv: list[str]) -> None:
    before = snapshot(folder)
    ends_as_documented(argv)
    assert snapshot(folder) == before


# What a verb requires, so that its absence is not the only error that is tested.
_NEEDED = {
    "prepare": (["--out", "new"], ["--input", "text.txt"]),
    "plan": (["--config", "tiny.py"], ["--chip", "h100"], ["--devices", "8"]),
    "train": (["--config", "tiny.py"], ["--workdir", "new"]),
    "sweep": (["--sweep", "tiny.py"], ["--out", "new"]),
    "sample": (["--model", "run"],),
    "inspect": (["--model", "run"], ["--text", "a"], ["--out", "new"]),
    "serve": (["--model", "run"],),
    "eval": (["--model", "run"], ["--text", "text.txt"]),
    "report": (["results"],),
    "convert": (["--model", "run"], ["--to", "hf"], ["--out", "new"]),
    "doctor": (),
}


@pytest.mark.parametrize("verb", VERBS)
@cases(120)
@given(data=st.data())
def test_any_value_of_a_flag(here: Path, verb: str, data: st.DataObject) -> None:
    flag, value = data.draw(st.sampled_from(_FLAGS[verb])), data.draw(_values)
    needed = [pair for pair in _NEEDED[verb] if pair[0] != flag]
    line = [verb, *(word for pair in needed for word in pair), flag, value]
    _ends_well(here, [word for word in line if "/" not in word])


@pytest.mark.parametrize("verb", VERBS)
@cases(80)
@given(data=st.data())
def test_any_words_after_a_verb(here: Path, verb: str, data: st.DataObject) -> None:
    needed = [pair for pair in _NEEDED[verb] if data.draw(st.integers(0, 5))]
    line = data.draw(_lines(verb))
    _ends_well(here, [verb, *(word for pair in needed for word in pair), *line])


@cases(100)
@given(line=st.lists(words() | st.sampled_from(["--version", "--help", *VERBS]), min_size=1))
def test_any_words(here: Path, line: list[str]) -> None:
    if line[0].strip("-"):  # without a verb, the help is shown
        _ends_well(here, [word for word in line if "/" not in word])


_KEYS = [knob.key for knob in config_lib.knobs()]


@st.composite
def _overrides(draw: Any) -> str:
    section, name = draw(st.sampled_from(_KEYS)).split(".")
    key = draw(st.sampled_from([f"{section}.{name}"] * 5 + [section, name, f"{name}.{section}"]))
    return f"--config.{key}={draw(_values)}"


@cases(400)
@given(
    overrides=st.lists(_overrides() | _values.map("--config.{}".format), min_size=1, max_size=3),
    mode=st.sampled_from(["--show_knobs", "--dry_run", "--workdir=new"]),
)
def test_any_overrides(here: Path, overrides: list[str], mode: str) -> None:
    overrides = [word for word in overrides if "/" not in word]
    _ends_well(here, ["train", "--config", "tiny.py", mode, *overrides])


_SIZES_OF = [
    knob.key
    for knob in config_lib.knobs()
    if knob.type is int and knob.key.split(".")[0] in ("model", "train", "mesh")
]
_sizes = st.sampled_from([1, 2, 3, 8, 32, 720720, 10**6, 2**31 - 128, 2**31 - 1, 2**31, 2**63])


@cases(60)
@given(
    sizes=st.dictionaries(st.sampled_from(_SIZES_OF), _sizes, min_size=1, max_size=3),
    devices=st.sampled_from([1, 1, 1, 8]) | _sizes,
    more=st.sampled_from([[], ["--search"], ["--price", "1e6"]]),
)
def test_any_sizes(here: Path, sizes: dict[str, int], devices: int, more: list[str]) -> None:
    overrides = [f"--config.{key}={size}" for key, size in sizes.items()]
    words = ["plan", "--config", "tiny.py", "--chip", "h100", "--devices", str(devices), *more]
    _ends_well(here, [*words, *overrides])
