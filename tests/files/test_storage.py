from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.files.storage import (
    PatientFile,
    is_remote,
    remove_tree,
    storage_path,
    write_whole,
)


def test_a_folder_on_a_disk_is_a_path_as_ever(tmp_path):
    path = storage_path(tmp_path / "run")
    assert type(path) is type(Path()) and not is_remote(path)
    (path / "a" / "b").mkdir(parents=True)
    remove_tree(path)
    remove_tree(path)
    assert not path.exists()


def test_a_bucket_without_its_extra_is_refused_at_once(tmp_path, monkeypatch, capfd):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name)
    )
    config = tmp_path / "config.py"
    config.write_text("from gpt2_jax.config import default\nget_config = default\n")
    assert main(["train", "--config", str(config), "--workdir", "gs://bucket/run"]) == 2
    errors = capfd.readouterr().err
    assert "--workdir gs://bucket/run" in errors and "gpt2_jax[gcs]" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", ["s3://bucket/run", "https://host/run"])
def test_other_schemes_are_refused_by_name(name):
    with pytest.raises(UserError, match=name):
        storage_path(name, "--workdir")


def test_what_is_written_whole_replaces_what_was_there(tmp_path):
    path = tmp_path / "config.json"
    for content in (b"old, and longer", b"new"):
        write_whole(path, content)
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_what_a_full_disk_does_not_take_is_written_when_there_is_room(
    tmp_path, monkeypatch, capsys
):
    write, room = os.write, [3]

    def limited(descriptor, content):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(descriptor, bytes(content[: room[0]]))
        room[0] -= taken
        return taken

    file = PatientFile(tmp_path / "rows")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", limited)
        for row in (b"one\n", b"two\n", b"three\n"):
            file.write(row)
        assert (tmp_path / "rows").read_bytes() == b"one"
        room[0] = 5
        file.flush()
        assert (tmp_path / "rows").read_bytes() == b"one\ntwo\n"
        room[0] = 1000
        file.write(b"four\n")
    assert (tmp_path / "rows").read_bytes() == b"one\ntwo\nthree\nfour\n"
    file.close()
    assert capsys.readouterr().err.count("waits in memory") == 1


def test_other_failures_of_a_patient_file_are_raised(tmp_path):
    with pytest.raises(OSError, match="rows"):
        PatientFile(tmp_path / "missing" / "rows")
