from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.training.workdir import (
    make_workdir,
    note_other_files,
    read_run_config,
    write_run_config,
)


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
    with pytest.raises(UserError, match=r"config\.json is not the config of a run .*move it away"):
        read_run_config(tmp_path)


def test_a_folder_with_the_model_of_another_program_is_no_workdir(tmp_path: Path) -> None:
    hugging_face, weights, openai = (tmp_path / name for name in ("hf", "weights", "openai"))
    for folder in (hugging_face, weights, openai):
        folder.mkdir()
    (hugging_face / "config.json").write_text('{"architectures": [], "model_type": "gpt2"}')
    (weights / "model.safetensors").write_bytes(b"")
    (openai / "hparams.json").write_text("{}")
    for folder in (hugging_face, weights, openai):
        with pytest.raises(UserError) as error:
            read_run_config(folder)
        assert "another --workdir with --config.train.init_from=" + str(folder) in str(error.value)
        assert "remove" not in str(error.value) and "move it" not in str(error.value)
    # What another program's model lies beside is a run all the same.
    write_run_config(weights, from_dict({}))
    assert read_run_config(weights) == from_dict({})


def test_other_files_in_the_folder_of_a_new_run_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_other_files(tmp_path)
    (tmp_path / ".hidden").touch()
    note_other_files(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / "thesis.tex").touch()
    note_other_files(tmp_path)
    assert capsys.readouterr().err == (
        f"note: --workdir {tmp_path} has other files than a run's, which stay: thesis.tex\n"
    )
    (tmp_path / "metrics.jsonl").touch()  # a run has begun beside them
    note_other_files(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_link_to_a_folder_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk/run")
    make_workdir(tmp_path / "link")
    assert (tmp_path / "disk" / "run").is_dir() and (tmp_path / "link").is_symlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"loop is a link that leads back to itself"):
        make_workdir(tmp_path / "loop")


def test_a_workdir_in_a_bucket_is_not_taken_for_a_link() -> None:
    bucket = mock.Mock(spec=["mkdir", "__fspath__"], __fspath__=lambda _: "gs://bucket/run")
    make_workdir(bucket)  # its paths have fewer methods than pathlib's
    bucket.mkdir.assert_called_once_with(parents=True, exist_ok=True)


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
