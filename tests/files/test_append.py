from __future__ import annotations

import errno
import os

import pytest

from gpt2_jax.files import append
from gpt2_jax.files.append import AppendFile, RemoteAppendFile, open_append


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_full_disk_does_not_take_is_written_when_there_is_room(
    tmp_path, monkeypatch, capsys
):
    write, room = os.write, [3]

    def limited(descriptor, content):
        if not room[0]:
            raise full()
        taken = write(descriptor, bytes(content[: room[0]]))
        room[0] -= taken
        return taken

    file = open_append(tmp_path / "lines")
    assert isinstance(file, AppendFile)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", limited)
        for line in (b"one\n", b"two\n", b"three\n"):
            file.write(line)
        assert (tmp_path / "lines").read_bytes() == b"one"
        room[0] = 5
        file.flush()
        assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"
        room[0] = 1000
        file.write(b"four\n")
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\nthree\nfour\n"
    file.close()
    assert capsys.readouterr().err.count("waits in memory") == 1


def test_a_file_that_a_full_disk_does_not_let_be_made_is_made_later(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise full()

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        file = AppendFile(tmp_path / "lines")
        file.write(b"one\n")
    file.write(b"two\n")
    file.close()
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"
    assert "waits in memory" in capsys.readouterr().err


def test_a_disk_that_stays_full_costs_the_end_and_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise full()

    file = AppendFile(tmp_path / "lines")
    file.write(b"one\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        file.write(b"two\n")
        file.close()
    assert (tmp_path / "lines").read_bytes() == b"one\n"
    assert capsys.readouterr().err.endswith("lines is missing its last 4 bytes\n")


def test_other_failures_to_open_a_file_are_raised(tmp_path):
    with pytest.raises(OSError, match="lines"):
        open_append(tmp_path / "missing" / "lines")


class RemotePath(os.PathLike):
    """An object in a bucket."""

    def __init__(self, content):
        self.content, self.fails = content, False

    def __fspath__(self):
        return "gs://bucket/run/metrics.jsonl"

    def exists(self):
        return self.content is not None

    def read_bytes(self):
        return self.content

    def write_bytes(self, content):
        if self.fails:
            raise ConnectionError("no route")
        self.content = content


@pytest.mark.parametrize("before", [None, b"zero\n"])
def test_an_object_is_sent_whole_now_and_then(monkeypatch, capsys, before):
    now, path = [100.0], RemotePath(before)
    monkeypatch.setattr(append.time, "monotonic", lambda: now[0])
    file = open_append(path)
    assert isinstance(file, RemoteAppendFile)
    file.write(b"one\n")
    assert path.content == before
    now[0] += 30
    file.write(b"two\n")
    start = before or b""
    assert path.content == start + b"one\ntwo\n"
    path.fails = True
    file.write(b"three\n")
    file.flush()
    assert "gs://bucket/run/metrics.jsonl was not written: no route" in capsys.readouterr().err
    path.fails = False
    file.close()
    assert path.content == start + b"one\ntwo\nthree\n"
