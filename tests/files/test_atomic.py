from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from gpt2_jax.files.atomic import open_atomic, write_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_content_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "config.json"
    for content in (b"old, and longer", b"new", b""):
        write_file(path, content)
        assert path.read_bytes() == content and names(tmp_path) == ["config.json"]


def test_the_mode_is_that_of_any_new_file(tmp_path):
    write_file(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("atomic", "plain")}
    assert len(modes) == 1


def test_the_old_content_is_read_until_the_block_ends(tmp_path):
    path = tmp_path / "tokens"
    path.write_bytes(b"old")
    with open_atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (temporary,) = set(names(tmp_path)) - {"tokens"}
        assert temporary.endswith(".tmp") and str(os.getpid()) in temporary
    assert path.read_bytes() == b"new" and names(tmp_path) == ["tokens"]


@pytest.mark.parametrize("failure", [ValueError("bad text"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_content(tmp_path, failure):
    path = tmp_path / "tokens"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)), open_atomic(path) as file:
        file.write(b"half")
        raise failure
    assert path.read_bytes() == b"old" and names(tmp_path) == ["tokens"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_content(tmp_path, monkeypatch, call):
    path = tmp_path / "config.json"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["config.json"]


def test_a_failure_is_told_though_the_temporary_file_cannot_be_removed(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="bad text"), open_atomic(tmp_path / "tokens"):
        monkeypatch.setattr("pathlib.Path.unlink", _refuse)
        raise ValueError("bad text")


def _refuse(path, missing_ok=False):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_two_writers_in_one_process_do_not_share_a_file(tmp_path):
    path = tmp_path / "tokens"
    with open_atomic(path) as first, open_atomic(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first" and names(tmp_path) == ["tokens"]


def test_a_reader_sees_one_whole_content_while_others_write(tmp_path):
    path = tmp_path / "state"
    code = (
        "import sys; from pathlib import Path\n"
        "from gpt2_jax.files.atomic import write_file\n"
        "for _ in range(100): write_file(Path(sys.argv[1]), sys.argv[2].encode() * 5000)\n"
    )
    write_file(path, b"0" * 5000)
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), x]) for x in "123"]
    contents = set()
    while any(writer.poll() is None for writer in writers):
        contents.add(path.read_bytes())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert contents <= {x * 5000 for x in (b"0", b"1", b"2", b"3")} and len(contents) > 1
    assert names(tmp_path) == ["state"]


def test_a_kill_leaves_the_old_content(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from gpt2_jax.files.atomic import open_atomic\n"
        "with open_atomic(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old"


class RemotePath(os.PathLike):
    """A path in a bucket, as far as a write asks for it."""

    def __init__(self):
        self.requests = []

    def __fspath__(self):
        return "gs://bucket/run/config.json"

    def write_bytes(self, content):
        self.requests.append(content)


def test_an_object_in_a_bucket_is_written_in_one_request_or_not_at_all():
    path = RemotePath()
    with open_atomic(path) as file:
        file.write(b"one, ")
        file.write(b"two")
        assert path.requests == []
    assert path.requests == [b"one, two"]
    with pytest.raises(ValueError), open_atomic(path) as file:
        file.write(b"half")
        raise ValueError
    assert path.requests == [b"one, two"]
