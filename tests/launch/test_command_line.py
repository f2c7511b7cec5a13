"""Tests how launch/local.py, supervise.py and gke/submit.py parse their command lines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.in_process import launch

_LAUNCH = Path(__file__).parents[2] / "launch"
_REQUIRED = {
    "local.py": ("--processes", "2"),
    "supervise.py": (),
    "gke/submit.py": (
        *("--name", "run", "--chip", "h100", "--image", "image:1", "--data_bucket", "texts"),
    ),
}
_EVERY = pytest.mark.parametrize("script", _REQUIRED)
_RUN = ("gpt2-jax", "train", "--config", "c.py", "--workdir", "gs://bucket/run")


@_EVERY
def test_it_runs_in_any_folder_by_itself_and_by_python(script, tmp_path):
    words = (*_REQUIRED[script], "--dry-run", "--", *_RUN)
    alone, by_python = (
        subprocess.run(
            [*python, str(_LAUNCH / script), *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        for python in ([], [sys.executable])
    )
    assert alone.returncode == 0 and "gpt2-jax" in alone.stdout, alone.stderr
    assert by_python.returncode == 0, by_python.stderr
    in_process = launch(script, *(word.replace("-run", "_run") for word in words))
    assert in_process.returncode == 0
    if script != "local.py":  # it chooses another port every time
        assert by_python.stdout == alone.stdout == in_process.stdout


@_EVERY
def test_help_is_the_docstring_and_names_every_flag_that_must_be_given(script):
    text = launch(script, "--help").stdout
    docstring = ast.get_docstring(ast.parse((_LAUNCH / script).read_text("utf-8")), clean=False)
    assert all(line in text for line in docstring.splitlines())
    usage = text.partition("\n\n")[0]
    assert re.findall(r"--\w+", usage) == list(_REQUIRED[script][::2])
    assert usage.endswith("[flags] -- COMMAND...")


@_EVERY
def test_a_forgotten_double_dash_is_named(script):
    for command in (_RUN, ("launch/local.py", "--processes", "2", "--", *_RUN), ("x", "--help")):
        done = launch(script, *_REQUIRED[script], *command)
        assert done.returncode == 2 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert f"put -- before the command: launch/{script} [flags] -- {command[0]} ..." in line


@_EVERY
def test_what_comes_after_the_double_dash_is_the_commands_own(script):
    words = ("echo", "--help", "--", "--dry-run")
    done = launch(script, *_REQUIRED[script], "--dry-run", "--", *words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"echo\W+--help\W+--\W+--dry-run", done.stdout)


@_EVERY
@pytest.mark.parametrize("words", [(), ("--",)])
def test_a_missing_command_is_named(script, words):
    done = launch(script, *_REQUIRED[script], *words)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: the command is missing: put it after -- (see launch/{script} --help)\n"
    )
