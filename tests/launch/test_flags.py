from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "launch" / "flags.sh"
_CHIPS = ("v4", "v5e", "v5p", "v6e", "a100", "h100", "cpu")


def flags(*words, **environment):
    clean = {
        key: os.environ[key] for key in os.environ if key not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
    }
    return subprocess.run(
        [str(_SCRIPT), *words], capture_output=True, text=True, env=clean | environment
    )


def test_every_chip_is_known_and_printed_flags_are_those_of_the_command():
    for chip in _CHIPS:
        printed = [shlex.split(line)[1] for line in flags(chip).stdout.splitlines()]
        ran = flags(chip, "env").stdout.splitlines()
        assert set(printed) <= set(ran)
        assert len(printed) == (chip != "cpu")


def test_what_the_user_has_set_comes_last():
    ran = flags("h100", "env", XLA_FLAGS="--xla_mine=1").stdout
    assert re.search(r"^XLA_FLAGS=--xla_gpu\S+ .* --xla_mine=1$", ran, re.MULTILINE)


def test_jax_knows_the_flags_of_gpus():
    setting = shlex.split(flags("h100").stdout)[1].partition("=")[2]
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"

    def status(value):
        environment = os.environ | {"XLA_FLAGS": value}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True
        ).returncode

    assert status(setting) == 0
    assert status("--xla_gpu_no_such_flag=1") != 0


def test_a_dry_run_prints_the_command_with_its_settings():
    done = flags("--dry-run", "v5e", "gpt2-jax", "train", "a b")
    words = shlex.split(done.stdout)
    assert words[0] == "env" and words[1].startswith("LIBTPU_INIT_ARGS=--xla")
    assert words[2:] == ["gpt2-jax", "train", "a b"]


def test_dashes_before_the_command_are_taken_as_the_other_launchers_take_them():
    given = ("gpt2-jax", "train")
    assert (
        flags("v5e", "--dry-run", "--", *given).stdout == flags("--dry_run", "v5e", *given).stdout
    )
    assert flags("cpu", "--", "echo", "--", "x").stdout == "-- x\n"


def test_help_is_the_head_of_the_script():
    done = flags("--help")
    assert done.returncode == 0 and done.stdout.startswith(
        "Runs a command with the compiler flags of a chip"
    )
    assert "set -" not in done.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "the chip is missing: name v4, v5e"),
        (("v7", "true"), "'v7'"),
        (("gpt2-jax", "train"), "the chip must be v4, v5e, v5p, v6e, a100, h100 or cpu, not"),
        (("--chip", "v5e", "true"), "unknown flag --chip"),
        (("v5e", "no-such-program"), "no-such-program"),
    ],
)
def test_wrong_input_is_one_line(words, named):
    done = flags(*words)
    assert done.returncode == 2 and named in done.stderr
    assert len(done.stderr.splitlines()) == 1
