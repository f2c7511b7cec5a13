"""Tests which commands the script gives to gcloud, by a fake one, and what a dry run prints."""

from __future__ import annotations

import os
import shlex
import shutil
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
_LOCAL = ("--", "gpt2-jax", "train", "--workdir", "runs/a")
_VERBS = ("describe", "create", "delete", "ssh", "scp", "archive")
# Answers to `describe` and to what goes over ssh come from files, one a call; the last is repeated.
_FAKE = r"""#!/usr/bin/env bash
(IFS=$'\x1f'; echo "${0##*/}"$'\x1f'"$*") >>"$RECORD"
[[ " $* " != *" describe "* ]] || {
  read -r now rest <"$STATES"
  echo "$now"
  echo "${rest:-$now}" >"$STATES"
  [[ $now != NOT_FOUND ]] || exit 1
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
    assert done.returncode == 76 and "could not be created; trying again" in done.stderr
    assert "the run has ended with 76" in done.stderr


def test_one_host_may_have_a_folder_of_its_own(pod):
    for slice_type in ("v4-8", "v5litepod-8", "v6e-1"):
        done, asked = pod("start", *_PLACE, "--type", slice_type, *_LOCAL)
        assert done.returncode == 0 and "--workdir runs/a" in asked[-1][-1]


@pytest.mark.parametrize("words", [("status", *_PLACE), ("watch", *_PLACE, *_TYPE, *_RUN)])
def test_where_gcloud_can_not_look_it_is_said_and_nothing_more_is_asked(pod, words):
    done, asked = pod(*words, answers="NOT_FOUND")
    assert done.returncode == 1 and len(asked) == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: cannot read the state of gpt2 in us-west4-a: check that gcloud is logged in"
    )


def test_without_gcloud_a_line_says_so(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for words, status in ((("stop", *_PLACE), 2), (("stop", *_PLACE, "--dry-run"), 0)):
        done = subprocess.run(
            [str(_SCRIPT), *words], env={"PATH": str(tmp_path)}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        assert ("error: gcloud is not on the PATH" in done.stderr) == bool(status)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "the command must be up, create"),
        (("launch",), "the command must be up, create"),
        (("up", "--zone", "z"), "--name"),
        (("up", "--name", "Gpt 2"), "Gpt 2"),
        (("up", *_PLACE, "--type", "v9-8", *_RUN), "v9-8"),
        (("up", *_PLACE, *_TYPE), "the command is missing: put it after --"),
        (("create", *_PLACE, *_TYPE, "--spot", "--reserved"), "cannot be combined"),
        (("create", *_PLACE, "--type"), "--type needs a value"),
        (("create", *_PLACE, "--preemptible"), "--preemptible"),
        (("create", *_PLACE, "--type", "v4-x"), "'v4-x'"),
        (("up", *_PLACE, *_TYPE, *_RUN[1:]), "put -- before the command"),
        (
            ("up", *_PLACE, *_TYPE, *_LOCAL),
            "runs/a: the hosts of a v5litepod-16 do not share",
        ),
        (("start", *_PLACE, *_TYPE, "--", "x", "--workdir=/tmp"), "--workdir /tmp: the hosts"),
        (("watch", *_PLACE, "--type", "v4-16", *_LOCAL), "the hosts of a v4-16"),
    ],
)
def test_wrong_input_is_one_line_and_asks_for_nothing(pod, words, named):
    done, asked = pod(*words)
    assert (done.returncode, asked) == (2, [])
    assert named in done.stderr and len(done.stderr.splitlines()) == 1
