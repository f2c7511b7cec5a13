"""Tests that every command of the launching docs parses, and every launcher's dry run."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_jax.cli.main import VERBS
from gpt2_jax.cli.verb import parse

_ROOT = Path(__file__).parents[2]
_RECIPE = _ROOT / "docs" / "recipe_124m_fineweb.md"
_DOCS = (_ROOT / "launch" / "README.md", _RECIPE)


def commands(path):
    """Returns the words of every command line in the ```sh blocks of a document."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def dry_run(words):
    """Returns the command with the launcher's --dry-run."""
    if words[0] == "sbatch":
        script = next(i for i, word in enumerate(words) if word.endswith(".sbatch"))
        return [words[script], "--dry-run", *words[script + 1 :]]
    after = 2 if words[0].endswith("tpu_pod.sh") else 1
    return [*words[:after], "--dry-run", *words[after:]]


def launches():
    every = [words for path in _DOCS for words in commands(path)]
    return [words for words in every if words[0].startswith("launch/") or words[0] == "sbatch"]


@pytest.mark.parametrize("words", launches(), ids=lambda words: "_".join(words[:4]))
def test_every_launcher_runs_dry(words, tmp_path):
    environment = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    done = subprocess.run(
        dry_run(words), cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "error" not in done.stderr and done.stdout.strip()


def test_every_verb_takes_the_flags_it_is_given():
    given = [words for path in _DOCS for words in commands(path)]
    given = [words[words.index("gpt2-jax") :] for words in given if "gpt2-jax" in words]
    assert len(given) > 10
    for _, verb, *words in given:
        assert verb in VERBS
        parse(verb, importlib.import_module(f"gpt2_jax.cli.{verb}"), words)


def test_the_recipe_shows_what_its_dry_runs_print():
    text = _RECIPE.read_text("utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown = [block for kind, block in blocks if not kind]
    ours = [words for words in commands(_RECIPE) if words[0].startswith("launch/")]
    up = next(words for words in ours if words[1] == "up")
    flags = next(words for words in ours if words[0] == "launch/flags.sh")
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    for words, block in zip((up, flags), shown, strict=True):
        done = subprocess.run(dry_run(words), cwd=_ROOT, env=clean, capture_output=True, text=True)
        printed = done.stdout.replace(str(_ROOT), "gpt2_jax")
        assert block == printed, f"the recipe should show:\n{printed}"
