from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.training.workdir import make_workdir, read_run_config, write_run_config


def test_the_config_of_a_run_comes_back_and_is_not_written_twice(tmp_path: Path) -> None:
    assert read_run_config(tmp_path) is None
    config = from_dict({"model": {"vocab_size": 61}, "train": {"seed": 7}})
    write_run_config(tmp_path, config)
    assert read_run_config(tmp_path) == config
    path = tmp_path / "config.json"
    os.utime(path, (1, 1))
    write_run_config(tmp_path, config)
    assert path.stat().st_mtime == 1
    write_run_config(tmp_path, from_dict({"train": {"seed": 8}}))
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"model": 3}', b"\xff", b'{"a": {}}'])
def test_a_file_that_is_not_a_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is not the config of a run .*remove it"):
        read_run_config(tmp_path)


def test_a_workdir_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    make_workdir(tmp_path / "new" / "run")
    assert (tmp_path / "new" / "run").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make --workdir .*file/run: Not a directory"):
        make_workdir(tmp_path / "file" / "run")


def test_a_workdir_without_permission_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write in --workdir .*: permission denied"):
        make_workdir(tmp_path)
