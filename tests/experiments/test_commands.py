"""Commands that are timed, and what is carried to a machine without a network."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from experiments.benchmarks import carry, machine
from experiments.benchmarks.wheels import CannotInstall, install
from experiments.benchmarks.workers.command import prepare

_ROOT = Path(__file__).parents[2]


def _command(tmp_path, code, **options):
    command = ["{python}", "-u", "-c", code, "{scratch}"]
    task = {"python": sys.executable, "folder": str(tmp_path), "subject": "ours"}
    return prepare({**task, "options": {"command": command, **options}})


def test_a_command_is_timed_to_its_end(tmp_path):
    code = "import sys, pathlib; print(pathlib.Path(sys.argv[1]).is_dir()); print('loss: 1.25')"
    answer = _command(tmp_path, code, answer=r"loss: ([0-9.]+)").run("process", 1)
    assert answer["values"] == [1.25]
    assert 0 < answer["seconds"] < 60


def test_a_command_is_timed_to_a_line_and_then_ended(tmp_path):
    code = "import time; print('step 1 loss 2.0'); time.sleep(600)"
    assert _command(tmp_path, code, until=r"step 1\b").run("first step", 1)["seconds"] < 60


@pytest.mark.parametrize("options", [{}, {"until": "never"}])
def test_a_command_that_fails_says_so(tmp_path, options):
    code = "print('what went wrong'); raise SystemExit(3)"
    with pytest.raises(RuntimeError, match=r"ended with 3(.|\n)*what went wrong"):
        _command(tmp_path, code, **options).run("process", 1)


def test_programs_are_kept_between_runs_of_a_warm_cache_alone(tmp_path):
    code = "import os; print(os.environ['GPT2_JAX_COMPILATION_CACHE'].count('scratch-of-a-test'))"
    folder = tmp_path / "scratch-of-a-test"
    warm, cold = (_command(folder, code, cache=kind, answer=r"(\d)") for kind in ("warm", "cold"))
    assert [warm.run("p", 1)["values"], cold.run("p", 1)["values"]] == [[1.0], [0.0]]


def test_what_is_carried_is_required_by_the_project():
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split(r"[<>=\[ ]", line)[0] for line in project["dependencies"]}
    assert set(carry.PACKAGES) - required == {"array-record"}  # which grain requires
    words = carry.command(Path("wheels"), "3.12")
    assert words[words.index("--python-version") + 1] == "3.12" and "--no-deps" in words


def test_wheels_that_do_not_fit_are_one_line(tmp_path):
    (tmp_path / "nothing-1.0-py3-none-any.whl").write_bytes(b"not a wheel")
    with pytest.raises(CannotInstall) as raised:
        install(tmp_path, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_the_machine_is_described():
    found = machine.describe()
    assert found["cores"] >= 1 and found["memory_bytes"] > 2**28
    assert found["amx"] == ("amx_bf16" in found["flags"])
    assert len(machine.source_digest()) == 16
    before = machine.seconds_of_others()
    assert before is None or machine.seconds_of_others() >= before - 1
