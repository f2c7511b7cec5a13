"""What the script asks of gcloud, recorded by a fake one, and what a dry run says it would ask."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "launch" / "tpu_pod.sh"
_GOLDEN = Path(__file__).parent / "golden"
_PLACE = ("--name", "gpt2", "--zone", "us-west4-a")
_TYPE = ("--type", "v5litepod-16")
_LOGS = ("--logs", "gs://bucket/logs")
_RUN = ("--", "gpt2-jax", "train", "--workdir", "gs://bucket/a run")
_VERBS = ("describe", "create", "delete", "ssh", "scp", "archive")
# Answers to `describe` and to what goes over ssh come from files, one a call; the last is repeated.
_FAKE = r"""#!/usr/bin/env bash
(IFS=$'\x1f'; echo "${0##*/}"$'\x1f'"$*") >>"$RECORD"
[[ " $* " != *" describe "* ]] || {
  read -r now rest <"$STATES"
  echo "$now"
  echo "${rest:-$now}" >"$STATES"
  [[ $now != NOT_FOUND ]]
}
[[ " $* " != *" ssh "* ]] || {
  read -r now rest <"$STATUSES"
  [[ $now == none ]] || echo "$now"
  echo "${rest:-$now}" >"$STATUSES"
}
"""


@pytest.fixture
def pod(tmp_path):
    """Runs the script with fake `gcloud` and `git`; returns (result, commands they were given)."""
    for name in ("gcloud", "git"):
        (tmp_path / name).write_text(_FAKE)
        (tmp_path / name).chmod(0o755)
    files = {name: tmp_path / name.lower() for name in ("RECORD", "STATES", "STATUSES")}
    record = files["RECORD"]

    def run(*words, answers="ACTIVE", statuses="none", timeout=30):
        record.write_text("")
        files["STATES"].write_text(answers + "\n")
        files["STATUSES"].write_text(statuses + "\n")
        environment = os.environ | {name: str(path) for name, path in files.items()}
        environment |= {"POLL_S": "0.05"}
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        done = subprocess.run(
            [str(_SCRIPT), *words], capture_output=True, text=True, env=environment, timeout=timeout
        )
        return done, [line.split("\x1f") for line in record.read_text().splitlines()]

    return run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("up", ("up", *_PLACE, *_TYPE, "--spot", *_LOGS, *_RUN)),
        ("setup", ("install", *_PLACE, "--setup", "gcloud storage cp -r gs://bucket/data .")),
        ("run", ("run", *_PLACE, "--", "ls", "a b")),
        ("create", ("create", *_PLACE, "--type", "v6e-16", "--reserved", "--project", "mine")),
        ("status", ("status", *_PLACE)),
        ("logs", ("logs", *_PLACE)),
        ("stop", ("stop", *_PLACE)),
        ("delete", ("delete", *_PLACE)),
    ],
)
def test_the_commands_are_those_on_record_and_a_dry_run_prints_them(pod, name, words):
    done, asked = pod(*words)
    assert done.returncode == 0, done.stderr
    golden = _GOLDEN / f"tpu_pod_{name}.txt"
    text = "\n".join(map(shlex.join, asked)).replace(str(_ROOT), "ROOT") + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    end = words.index("--") if "--" in words else len(words)
    printed, ran = pod(*words[:end], "--dry-run", *words[end:])
    assert printed.returncode == 0 and ran == []
    lines = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert [line for line in lines if line[0] in ("gcloud", "git")] == asked


def test_create_waits_until_the_slice_is_there(pod):
    done, asked = pod("create", *_PLACE, *_TYPE, answers="ACCEPTED WAITING_FOR_RESOURCES ACTIVE")
    assert done.returncode == 0 and sum("describe" in words for words in asked) == 3
    done, _ = pod("create", *_PLACE, *_TYPE, answers="ACCEPTED FAILED")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: gpt2 is FAILED")


def test_watch_makes_a_preempted_slice_anew_as_often_as_it_takes_until_the_run_ends(pod):
    answers = "ACTIVE NOT_FOUND SUSPENDED FAILED UNKNOWN ACTIVE ACTIVE"
    statuses = "none none none 76"  # of `cat train.status` and the commands over ssh, in turn
    done, asked = pod("watch", *_PLACE, *_TYPE, *_RUN, answers=answers, statuses=statuses)
    verbs = [next(word for word in words if word in _VERBS) for words in asked]
    looked, lost = ["describe", "ssh"], ["describe"]
    refused = ["describe", "delete", "create", "describe"]
    made = ["describe", "delete", "create", "describe", "archive", "scp", "ssh", "ssh"]
    assert verbs == [*looked, *lost, *refused, *made, *looked]
    start = next(words[-1] for words in asked if "setsid" in words[-1])
    assert "launch/supervise.py --status_file ~/train.status -- gpt2-jax train" in start
    assert done.returncode == 76 and "could not be made anew; trying again" in done.stderr
    assert "the run has ended with 76" in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "name what to do"),
        (("launch",), "name what to do"),
        (("up", "--zone", "z"), "--name"),
        (("up", "--name", "Gpt 2"), "Gpt 2"),
        (("up", *_PLACE, "--type", "v9-8", *_RUN), "v9-8"),
        (("up", *_PLACE, *_TYPE), "a command after --"),
        (("create", *_PLACE, *_TYPE, "--spot", "--reserved"), "exclude each other"),
        (("create", *_PLACE, "--type"), "--type needs a value"),
        (("create", *_PLACE, "--preemptible"), "--preemptible"),
    ],
)
def test_wrong_input_is_one_line_and_asks_for_nothing(pod, words, named):
    done, asked = pod(*words)
    assert (done.returncode, asked) == (2, [])
    assert named in done.stderr and len(done.stderr.splitlines()) == 1
