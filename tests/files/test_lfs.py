"""Tests that Git LFS pointers are told from the files for which they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.files.lfs import refuse_lfs_pointers

_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def test_the_first_pointer_that_matches_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "long.json").write_text(_POINTER + " " * 2000)
    (tmp_path / "picture.png").write_text(_POINTER)
    refuse_lfs_pointers(tmp_path, ["*.json", "*.safetensors"])
    for name in ("c.safetensors", "b.json"):
        (tmp_path / name).write_text(_POINTER)
        with pytest.raises(UserError) as error:
            refuse_lfs_pointers(tmp_path, ["*.json", "*.safetensors"])
        assert str(error.value) == (
            f"{tmp_path / name} is a Git LFS pointer instead of the file itself: run `git lfs "
            f"pull` in {tmp_path}"
        )
