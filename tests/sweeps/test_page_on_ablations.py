"""The sweeps and commands of docs/ablations.md work, and it names what there is."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from gpt2_jax import sweeps
from gpt2_jax.cli.main import VERBS
from gpt2_jax.cli.verb import parse
from gpt2_jax.config import knobs
from gpt2_jax.sweeps.report import words
from gpt2_jax.sweeps.report.references import shipped
from gpt2_jax.sweeps.stages import Stages

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for kind, text in _BLOCKS if kind == "python"])
def test_the_sweep_files_are_sweeps(text, monkeypatch):
    monkeypatch.chdir(_ROOT)
    names = {name: getattr(sweeps, name) for name in sweeps.__all__}
    exec(text, names)
    stages = Stages(names["get_sweep"]())
    assert len(stages.may_have(list(stages.sweep.stages)[-1])) > 5


def test_the_commands_parse():
    texts = [text.replace("\\\n", " ") for kind, text in _BLOCKS if kind == "sh"]
    commands = [shlex.split(line, comments=True) for text in texts for line in text.splitlines()]
    assert len(commands) > 9
    for words_of_command in commands:
        _, verb, *rest = words_of_command[words_of_command.index("gpt2-jax") :]  # behind a launcher
        assert verb in VERBS
        parse(verb, importlib.import_module(f"gpt2_jax.cli.{verb}"), rest)


def test_every_knob_and_reference_and_column_is_named_rightly():
    named = set(re.findall(r"`((?:model|optimizer|schedule|train)\.\w+)`", _PAGE))
    assert len(named) > 15 and named <= {knob.key for knob in knobs()}
    assert all(f"| `{name}` |" in _PAGE for name in shipped())
    for column in words.COLUMNS[2:]:
        assert column in _PAGE
