"""Tests the batch script without Slurm; test_slurm.py runs it in one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"


def sbatch(*words):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.run([str(_SCRIPT), *words], capture_output=True, text=True, env=outside)


def test_help_is_the_head_of_the_script():
    done = sbatch("--help")
    assert done.returncode == 0 and done.stdout.startswith("Trains on Slurm")
    assert "end the job, as does `scancel JOB`." in done.stdout and "SBATCH" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the command is missing: sbatch launch/slurm/train.sbatch gpt2-jax train"),
        (("--",), "the command is missing"),
        (("gpt2-jax", "train"), "sbatch [options] launch/slurm/train.sbatch gpt2-jax train"),
        (("--nodes=2", "gpt2-jax"), "--nodes=2 goes before the script"),
    ],
)
def test_what_it_can_not_run_is_one_line_that_says_how_to(words, said):
    done = sbatch(*words)
    assert done.returncode == 2 and said in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith("(see launch/slurm/train.sbatch --help)")


def test_a_double_dash_before_the_command_changes_nothing():
    command = ("gpt2-jax", "train", "--", "x")
    dry = sbatch("--dry-run", *command).stdout
    assert "task gpt2-jax train -- x" in dry
    assert sbatch("--dry_run", "--", *command).stdout == dry
