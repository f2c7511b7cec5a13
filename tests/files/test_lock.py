from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.files.lock import FileLock, make_lock
from gpt2_jax.files.lock_owner import Holder


@pytest.fixture
def held(tmp_path):
    """A lock on `tmp_path`."""
    lock = make_lock(tmp_path)
    lock.acquire()
    yield lock
    lock.release()


def refusal(workdir):
    with pytest.raises(UserError) as caught:
        FileLock(workdir).acquire()
    return str(caught.value)


def test_a_second_trainer_is_told_who_has_the_workdir_and_changes_nothing(tmp_path, held):
    before = (tmp_path / "lock").read_bytes()
    said = refusal(tmp_path)
    told = json.loads(before)
    assert f"process {os.getpid()}, since {told['since']}" in said and told["host"] in said
    assert str(tmp_path) in said and "\n" not in said
    assert (tmp_path / "lock").read_bytes() == before
    held.release()
    assert list(tmp_path.iterdir()) == []
    held.acquire()


def test_a_holder_that_has_not_said_who_it_is_has_the_lock_all_the_same(tmp_path, held):
    for content in ("", "[]", '{"host": 1, "other": 2}', "no json"):
        (tmp_path / "lock").write_text(content)
        assert "is in use by another trainer: " in refusal(tmp_path)


def test_a_killed_holder_leaves_no_lock_though_its_child_lives_on(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from gpt2_jax.files.lock import FileLock\n"
        "FileLock(Path(sys.argv[1])).acquire()\n"
        "if not os.fork(): print(os.getpid(), flush=True)\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert f"process {parent.pid}, " in refusal(tmp_path)
        parent.kill()
    try:
        os.kill(child, 0)
        lock = FileLock(tmp_path)
        lock.acquire()
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        lock.release()
    finally:
        os.kill(child, 9)


def test_a_file_that_its_holder_removes_meanwhile_is_not_the_lock(tmp_path, held, monkeypatch):
    flock = fcntl.flock

    def release_first(descriptor, how):
        held.release()
        flock(descriptor, how)

    lock = FileLock(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", release_first)
        lock.acquire()
    assert f"process {os.getpid()}" in refusal(tmp_path)
    lock.release()


def test_a_holder_removes_only_its_own_file(tmp_path, held):
    (tmp_path / "lock").rename(tmp_path / "moved")  # as with a workdir that was moved away
    other = FileLock(tmp_path)
    other.acquire()
    held.release()
    assert "in use" in refusal(tmp_path)
    other.release()


def test_a_disk_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = FileLock(tmp_path)
    lock.acquire()
    lock.release()
    warned = capsys.readouterr().err
    assert warned.startswith("warning: ") and "No locks available" in warned


def test_a_lock_that_fails_for_a_moment_leaves_the_holders_file(tmp_path, held, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        other = FileLock(tmp_path)
        other.acquire()
        other.release()
    assert f"process {os.getpid()}" in refusal(tmp_path)


def test_what_stands_where_the_lock_belongs_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    assert str(tmp_path / "lock") in refusal(tmp_path)


def test_a_holder_is_alive_while_its_process_runs_on_this_machine():
    code = (
        "from gpt2_jax.files.lock_owner import Holder\n"
        "print(Holder.this().to_bytes().decode(), end='', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        holder = Holder.parse(process.stdout.readline())
        assert holder.pid == process.pid
        if not holder.place:
            pytest.skip("a system without /proc")
        assert holder.is_alive()
        assert dataclasses.replace(holder, place="elsewhere").is_alive() is None
        # Another process has had its number since.
        assert dataclasses.replace(holder, born="0").is_alive() is False
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holder.is_alive() is False  # though nobody has asked yet how it ended
    assert holder.is_alive() is False
    assert Holder().is_alive() is None
