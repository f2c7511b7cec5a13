from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.files.lock import FileLock, lock_folder
from gpt2_jax.files.lock_owner import LockOwner


@pytest.fixture
def held(tmp_path):
    """A lock on `tmp_path`, which is acquired."""
    lock = lock_folder(tmp_path, f"--workdir {tmp_path}")
    lock.acquire()
    yield lock
    lock.release()


def refusal(workdir):
    with pytest.raises(UserError) as caught:
        FileLock(workdir).acquire()
    return str(caught.value)


def test_a_second_process_is_refused_by_the_owners_name_and_changes_nothing(tmp_path, held):
    before = (tmp_path / "lock").read_bytes()
    message = refusal(tmp_path)
    owner = json.loads(before)
    described = f"process {os.getpid()} on host {owner['host']}, since {owner['since']}"
    assert message.startswith(f"{tmp_path} is in use by {described}: ") and "\n" not in message
    assert (tmp_path / "lock").read_bytes() == before
    held.release()
    assert list(tmp_path.iterdir()) == []
    held.acquire()


def test_an_owner_whose_record_is_unreadable_still_has_the_lock(tmp_path, held):
    for content in ("", "[]", '{"host": 1, "other": 2}', "no json"):
        (tmp_path / "lock").write_text(content)
        assert "is in use by another process: " in refusal(tmp_path)


def test_a_killed_owner_leaves_no_lock_though_its_child_lives_on(tmp_path):
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
        assert f"process {parent.pid} on " in refusal(tmp_path)
        parent.kill()
    try:
        os.kill(child, 0)
        lock = FileLock(tmp_path)
        lock.acquire()
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        lock.release()
    finally:
        os.kill(child, 9)


def test_a_file_that_its_owner_removes_meanwhile_is_not_the_lock(tmp_path, held, monkeypatch):
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


def test_an_owner_removes_only_its_own_file(tmp_path, held):
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


def test_a_lock_that_fails_for_a_moment_leaves_the_owners_file(tmp_path, held, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        other = FileLock(tmp_path)
        other.acquire()
        other.release()
    assert f"process {os.getpid()}" in refusal(tmp_path)


def test_a_folder_in_place_of_the_lock_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    assert str(tmp_path / "lock") in refusal(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    assert f"cannot lock {tmp_path / 'run'}: " in refusal(tmp_path / "run")


def test_an_owner_is_alive_while_its_process_runs_on_this_machine():
    code = (
        "from gpt2_jax.files.lock_owner import LockOwner\n"
        "print(LockOwner.this_process().to_bytes().decode(), end='', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        owner = LockOwner.parse(process.stdout.readline())
        assert owner.pid == process.pid
        if not owner.pid_space:
            pytest.skip("a system without /proc")
        assert owner.is_alive()
        assert dataclasses.replace(owner, pid_space="elsewhere").is_alive() is None
        # Another process has this process id now.
        assert dataclasses.replace(owner, started="0").is_alive() is False
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.is_alive() is False  # but its parent has not waited for it
    assert owner.is_alive() is False
    assert LockOwner().is_alive() is None


def test_the_message_is_the_callers(tmp_path, held):
    with pytest.raises(UserError, match=r"^--out data is being prepared by process"):
        lock_folder(tmp_path, "--out data", activity="being prepared").acquire()


def test_a_lock_makes_its_folder_and_follows_one_that_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "staging"
    flock = fcntl.flock

    def remove_first(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        shutil.rmtree(folder)  # as the last owner does when it has finished
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with FileLock(folder):
        assert "is in use by process" in refusal(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_removed_before_the_file_is_opened_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "staging"
    open_file = os.open

    def remove_first(path, *args):
        monkeypatch.setattr(os, "open", open_file)
        folder.rmdir()
        return open_file(path, *args)

    monkeypatch.setattr(os, "open", remove_first)
    with FileLock(folder):
        assert "is in use by process" in refusal(folder)
