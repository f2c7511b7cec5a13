"""Tests that a shard that changes while it is read gives an error and never its tokens."""

from __future__ import annotations

import contextlib
import os
import resource

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from gpt2_jax.data.loader import EvalWindows, TrainLoader, device_batches
from gpt2_jax.data.mixture import MixtureLoader
from gpt2_jax.data.shard_file import open_shard, write_shard
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError

T, B = 8, 4
STREAM = np.random.default_rng(0).integers(0, 257, 4000).astype(np.uint16)


def write(path, headerless):
    path.parent.mkdir(exist_ok=True)
    if headerless:
        STREAM.tofile(path)
    else:
        write_shard(path, [STREAM], len(STREAM))
    # Dated long ago, so that a change of its time is noticed even if clocks are coarse.
    os.utime(path, (1e9, 1e9))
    return path


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def append(path):
    with open(path, "ab") as file:
        file.write(b"\0\0")


def rewrite(path):
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\7\0")


def replace(path):
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[::-1])
    os.replace(other, path)


def remove(path):
    path.unlink()


def remove_folder(path):
    path.unlink()
    path.parent.rmdir()


# A read in the middle of the change may see the new time of the file before its new size.
RESIZED = r"has changed: it (had [\d,]+ bytes and has [\d,]+|was written to at 20.*);"
DAMAGES = {
    truncate: RESIZED,
    append: RESIZED,
    rewrite: r"has changed: it was written to at 20",
    replace: r"has changed: it was written to at 20",
    remove: "is missing;",
    remove_folder: "is missing;",
}


@pytest.fixture(params=[False, True], ids=["header", "headerless"])
def shard(request, tmp_path):
    return write(tmp_path / "data" / "train.bin", request.param)


def train_loader(folder):
    tokens = open_tokens(folder, "train", val_fraction=0)
    return TrainLoader(tokens, batch_size=B, context_length=T, seed=0)


def train_on_one(shard):
    return train_loader(shard.parent)


def train_on_two(shard):
    other = write(shard.parents[1] / "other" / "train.bin", headerless=False)
    return MixtureLoader([train_loader(other.parent), train_loader(shard.parent)], [3, 1])


def validate(shard):
    tokens = open_tokens(shard.parent, "train", val_fraction=0)
    return EvalWindows(tokens, batch_size=B, context_length=T)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("make_source", [train_on_one, train_on_two, validate])
def test_batches_end_with_an_error_that_names_the_file(shard, make_source, damage):
    source = make_source(shard)
    sharding = SingleDeviceSharding(jax.devices()[0])
    with contextlib.closing(device_batches(source, sharding, prefetch=1)) as batches:
        next(batches)
        damage(shard)
        with pytest.raises(UserError, match=DAMAGES[damage]) as error:
            for _ in range(3):  # one may be ready, another may have been read by then
                next(batches)
    assert str(error.value).startswith(f"{shard}, ") and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_change_between_two_reads_of_one_batch_is_seen(shard, damage):
    file = open_shard(shard)
    tokens = np.zeros((2, 10), np.uint16)

    def wanted():
        yield 0, tokens[0]
        damage(shard)
        yield len(file) - 10, tokens[1]

    # An open file outlives its name: those tokens are correct, and the next read fails.
    keeps_content = damage in (replace, remove, remove_folder)
    with contextlib.nullcontext() if keeps_content else pytest.raises(UserError, match="changed"):
        file.fill(wanted())
        assert np.array_equal(tokens, [STREAM[:10], STREAM[-10:]])
    with pytest.raises(UserError, match=DAMAGES[damage]):
        file.fill([(0, tokens[0])])


def test_a_restored_file_is_read_again(shard):
    file, content = open_shard(shard), shard.read_bytes()
    tokens = np.zeros(10, np.uint16)
    rewrite(shard)
    with pytest.raises(UserError):
        file.fill([(5, tokens)])
    shard.write_bytes(content)
    os.utime(shard, (1e9, 1e9))
    file.fill([(5, tokens)])
    assert np.array_equal(tokens, STREAM[5:15])


def test_a_system_without_preadv_reads_the_same(shard, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: read(file, min(size, 7), at))
    tokens = open_tokens(shard.parent, "train", val_fraction=0)
    assert np.array_equal(tokens.read(0, len(STREAM)), STREAM)


def test_partial_reads_are_joined(shard, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, to, at: read(file, [to[0][:7]], at))
    tokens = open_tokens(shard.parent, "train", val_fraction=0)
    assert np.array_equal(tokens.read(0, len(STREAM)), STREAM)


def test_a_read_of_fewer_bytes_than_the_size_of_the_file_is_an_error(shard, monkeypatch):
    monkeypatch.setattr(os, "preadv", lambda file, to, at: 0)
    tokens = open_tokens(shard.parent, "train", val_fraction=0)
    with pytest.raises(UserError, match="ended too early; restore it"):
        tokens.read(5, 10)


def test_there_may_be_more_shards_than_a_process_may_open(tmp_path):
    for i in range(200):
        write_shard(tmp_path / f"train_{i:06}.bin", [STREAM[20 * i : 20 * i + 20]], 20)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
    try:
        tokens = open_tokens(tmp_path, "train", val_fraction=0)
        assert np.array_equal(tokens.read(0, len(STREAM)), STREAM)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_pipes_folders_and_broken_links_are_refused_without_waiting(tmp_path):
    for name, make in {
        "pipe_train.bin": os.mkfifo,
        "folder_train.bin": os.mkdir,
        "lost_train.bin": lambda path: os.symlink("nowhere", path),
    }.items():
        make(tmp_path / name)
        with pytest.raises(UserError, match=f"{name} is not a regular file"):
            open_tokens(tmp_path, "train")
        (tmp_path / name).rename(tmp_path / f"{name}.away")
