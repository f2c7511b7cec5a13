"""Tests that Git LFS pointers are told from the files for which they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shard_file import open_shard, parse_header
from gpt2_jax.errors import UserError
from gpt2_jax.evals.language_modeling import read_last_twentieth
from gpt2_jax.evals.task import read_text
from gpt2_jax.files.lfs import refuse_lfs_pointers
from gpt2_jax.prepare.formats import slices_of
from gpt2_jax.prepare.hub import hub_items

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


def test_whatever_reads_files_of_users_refuses_a_pointer(tmp_path: Path) -> None:
    readers = {
        "a.txt": lambda path: list(slices_of(path, 1 << 20)),
        "a.jsonl": lambda path: list(slices_of(path, 1 << 20)),
        "a.parquet": lambda path: list(slices_of(path, 1 << 20)),
        "a.txt.gz": lambda path: list(slices_of(path, 1 << 20)),
        "data/b.parquet": lambda path: hub_items(f"hub:{tmp_path}", "text"),
        "a_train_0.bin": open_shard,
        "train.bin": open_shard,
        "meta.json": lambda path: read_meta(path.parent),
        "test.txt": read_text,
        "enwik8": read_last_twentieth,
    }
    for name, reader in readers.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(_POINTER)
        with pytest.raises(UserError, match=rf"{path} is a Git LFS pointer .*`git lfs pull` in"):
            reader(path)
        path.unlink()
    with pytest.raises(UserError, match=r"gs://b/train\.bin is a Git LFS pointer .* and copy it"):
        parse_header("gs://b/train.bin", len(_POINTER), _POINTER.encode())  # type: ignore
