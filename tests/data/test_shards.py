"""Tests of folders of shards: what is read, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.data.meta import read_meta, write_meta
from gpt2_jax.data.shard_file import MAGIC, write_shard
from gpt2_jax.data.shards import (
    TokenArray,
    check_vocab,
    fingerprint,
    open_tokens,
)
from gpt2_jax.errors import UserError

STREAM = np.random.default_rng(0).integers(0, 50257, 1000).astype(np.uint16)


def shard(tokens, magic=MAGIC, version=1, count=None):
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    return header.tobytes() + np.asarray(tokens, "<u2").tobytes()


def write(folder, split, tokens, per_shard):
    shards = []
    for number, start in enumerate(range(0, len(tokens), per_shard)):
        ids = tokens[start : start + per_shard]
        name = f"{split}_{number:06d}.bin"
        digest = write_shard(folder / name, np.array_split(ids, 7), len(ids))
        shards.append({"file": name, "tokens": len(ids), "sha256": digest})
    return shards


def meta_of(**splits):
    described = {
        split: {
            "tokens": sum(s["tokens"] for s in shards),
            "bytes": 1,
            "documents": 1,
            "shards": shards,
        }
        for split, shards in splits.items()
    }
    return {"tokenizer": {"name": "gpt2"}, "vocab_size": 50257, "splits": described}


def whole(tokens):
    return tokens.read(0, len(tokens)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=8), st.data())
def test_read_equals_the_concatenation(lengths, data):
    arrays = [np.arange(n, dtype=np.uint16) + 10 * i for i, n in enumerate(lengths)]
    joined = np.concatenate([*arrays, np.zeros(0, np.uint16)])
    tokens = TokenArray(arrays)
    assert len(tokens) == len(joined)
    start = data.draw(st.integers(0, len(joined)))
    stop = data.draw(st.integers(start, len(joined)))
    assert tokens.read(start, stop - start).tolist() == joined[start:stop].tolist()
    assert whole(tokens.slice(start, stop)) == joined[start:stop].tolist()


def test_read_refuses_what_is_outside():
    tokens = TokenArray([STREAM])
    for start, length in ((-1, 2), (999, 2), (0, 1001), (5, -1)):
        with pytest.raises(IndexError):
            tokens.read(start, length)


def test_writer_and_reader_agree_across_shards(tmp_path):
    shards = write(tmp_path, "train", STREAM, 300)
    write(tmp_path, "val", STREAM[:5], 300)
    assert [s["tokens"] for s in shards] == [300, 300, 300, 100]
    for s in shards:
        content = (tmp_path / s["file"]).read_bytes()
        assert s["sha256"] == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "train_000001.bin").read_bytes() == shard(STREAM[300:600])
    tokens = open_tokens(tmp_path, "train")
    assert whole(tokens) == STREAM.tolist()
    assert tokens.read(250, 400).tolist() == STREAM[250:650].tolist()
    assert whole(open_tokens(tmp_path, "val")) == STREAM[:5].tolist()


def test_writer_refuses_ids_beyond_uint16_and_other_counts(tmp_path):
    for wrong in (65536, -1):
        with pytest.raises(UserError, match="65535"):
            write_shard(tmp_path / "train.bin", [np.array([1, wrong])], 2)
    with pytest.raises(ValueError, match="2 tokens instead of 3"):
        write_shard(tmp_path / "train.bin", [STREAM[:2]], 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (shard([1, 2], magic=20240521), "not a token shard"),
        (shard([1, 2], version=2), "version 2"),
        (shard([1, 2], count=3), "corrupt: .* 3 tokens"),
        (shard([1, 2], count=-1), "-1 tokens"),
        (shard([]), "0 tokens"),
        (shard([1, 2])[:-1], "corrupt: .* 2 tokens"),
        (shard([1, 2]) + b"\0", "corrupt: .* 2 tokens"),
        (shard([1, 2])[:900], "truncated in its header"),
    ],
)
def test_corrupt_shards_are_named(tmp_path, content, problem):
    (tmp_path / "train_000000.bin").write_bytes(shard(STREAM))
    (tmp_path / "train_000001.bin").write_bytes(content)
    with pytest.raises(UserError, match=rf"train_000001\.bin.*{problem}"):
        open_tokens(tmp_path, "train")


def test_llm_c_names_are_read_in_order(tmp_path):
    (tmp_path / "fineweb_train_000002.bin").write_bytes(shard([3, 4]))
    (tmp_path / "fineweb_train_000001.bin").write_bytes(shard([1, 2]))
    (tmp_path / "fineweb_val_000000.bin").write_bytes(shard([5]))
    assert whole(open_tokens(tmp_path, "train")) == [1, 2, 3, 4]
    assert whole(open_tokens(tmp_path, "val")) == [5]


def test_nanogpt_files_have_no_header(tmp_path):
    STREAM.tofile(tmp_path / "train.bin")
    STREAM[:7].tofile(tmp_path / "val.bin")
    assert whole(open_tokens(tmp_path, "train")) == STREAM.tolist()
    assert whole(open_tokens(tmp_path, "val")) == STREAM[:7].tolist()
    (tmp_path / "val.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="odd size"):
        open_tokens(tmp_path, "val")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_wider_integers_without_a_header_are_refused(tmp_path, dtype):
    STREAM.astype(dtype).tofile(tmp_path / "train.bin")
    STREAM[:3].tofile(tmp_path / "val.bin")
    with pytest.raises(UserError, match=r"train\.bin is an array of integers of 4 bytes or more"):
        open_tokens(tmp_path, "train")
    np.zeros(500, np.uint16).tofile(tmp_path / "train.bin")
    assert not any(whole(open_tokens(tmp_path, "train")))


def test_wider_integers_with_a_header_are_refused(tmp_path):
    header = shard(STREAM)[:1024]
    (tmp_path / "train.bin").write_bytes(header + STREAM.astype("<u4").tobytes())
    with pytest.raises(UserError, match=r"corrupt: .* 3024 bytes for the 1000 tokens .* has 5024"):
        open_tokens(tmp_path, "train")


def test_header_wins_in_a_file_named_train_bin(tmp_path):
    (tmp_path / "train.bin").write_bytes(shard(STREAM))
    (tmp_path / "val.bin").write_bytes(shard(STREAM[:3], version=9))
    assert whole(open_tokens(tmp_path, "train")) == STREAM.tolist()
    with pytest.raises(UserError, match="version 9"):
        open_tokens(tmp_path, "val")


@pytest.mark.parametrize("count", [10, 999, 1000])
def test_split_without_val_files_is_nanogpts(tmp_path, count):
    write(tmp_path, "train", STREAM[:count], 300)
    cut = int(count * 0.9)  # nanoGPT, data/shakespeare_char/prepare.py
    assert whole(open_tokens(tmp_path, "train", val_fraction=0.1)) == STREAM[:cut].tolist()
    assert whole(open_tokens(tmp_path, "val", val_fraction=0.1)) == STREAM[cut:count].tolist()
    assert len(open_tokens(tmp_path, "train", val_fraction=0.0)) == count
    with pytest.raises(UserError, match="leaves no val tokens"):
        open_tokens(tmp_path, "val", val_fraction=0.0)


def test_missing_data_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"no data folder .*gpt2-jax prepare"):
        open_tokens(tmp_path / "absent", "train")
    with pytest.raises(UserError, match=r"no train tokens .*gpt2-jax prepare"):
        open_tokens(tmp_path, "val")
    (tmp_path / "train_val.bin").write_bytes(shard([1]))
    with pytest.raises(UserError, match="both train and val"):
        open_tokens(tmp_path, "train")


def test_meta_roundtrips_and_must_agree_with_the_files(tmp_path):
    assert read_meta(tmp_path) is None
    meta = meta_of(
        train=write(tmp_path, "train", STREAM, 600), val=write(tmp_path, "val", STREAM[:9], 600)
    )
    write_meta(tmp_path, meta)
    assert read_meta(tmp_path) == meta
    assert len(open_tokens(tmp_path, "train")) == 1000
    (tmp_path / "train_000001.bin").write_bytes(shard(STREAM[:399]))
    with pytest.raises(UserError, match=r"train_000001\.bin has 399 tokens.* 400"):
        open_tokens(tmp_path, "train")
    (tmp_path / "train_000001.bin").unlink()
    with pytest.raises(UserError, match=r"train_000001\.bin has no tokens"):
        open_tokens(tmp_path, "train")
    (tmp_path / "val_000000.bin").unlink()
    with pytest.raises(UserError, match="no val tokens"):
        open_tokens(tmp_path, "val")


@pytest.mark.parametrize(
    "damage",
    [
        lambda meta: "{",
        lambda meta: "[]",
        lambda meta: json.dumps({**meta, "vocab_size": "many"}),
        lambda meta: json.dumps({**meta, "splits": {"train": 3}}),
        lambda meta: json.dumps(meta).replace("sha256", "md5"),
        lambda meta: json.dumps(meta).replace("documents", "papers"),
    ],
)
def test_malformed_meta_is_named(tmp_path, damage):
    meta = meta_of(train=write(tmp_path, "train", STREAM, 600))
    (tmp_path / "meta.json").write_text(damage(meta))
    with pytest.raises(UserError, match=r"meta\.json") as error:
        open_tokens(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_fingerprint_follows_the_content(tmp_path):
    seen = []
    for meta in (False, True):
        for tokens in (STREAM, STREAM, STREAM[::-1], STREAM[:-1]):
            shards = write(tmp_path, "train", tokens, 600)
            if meta:
                write_meta(tmp_path, meta_of(train=shards))
            seen.append(fingerprint(tmp_path))
    assert seen[0] == seen[1] and seen[4] == seen[5]
    assert len(set(seen)) == 6


def test_fingerprints_never_change_so_that_runs_resume():
    foreign = [Path(__file__).parent / "foreign" / name for name in ("llmc", "nanogpt")]
    fingerprints = [fingerprint(each)[:16] for each in foreign]
    assert fingerprints == ["bb4ffa5f74030e43", "9cf3b315cdcf4288"]


def test_fingerprint_without_meta_sees_changes_inside_a_long_file(tmp_path):
    tokens = np.arange(200_000, dtype=np.uint16)
    write(tmp_path, "train", tokens, len(tokens))
    before = fingerprint(tmp_path)
    tokens[100_000:110_000] = 7
    write(tmp_path, "train", tokens, len(tokens))
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("position", [0, 500_000, 999_999])
def test_check_vocab_finds_ids_beyond_the_vocabulary(position):
    tokens = np.zeros(1_000_000, np.uint16)
    check_vocab(TokenArray([tokens]), 1)
    tokens[position : position + 20_000] = 70
    tokens[-1] = max(tokens[-1], tokens[position])
    with pytest.raises(UserError, match=r"id 70, .* 0 to 69"):
        check_vocab(TokenArray([tokens]), 70)
    check_vocab(TokenArray([tokens]), 71)
    check_vocab(TokenArray([np.zeros(3, np.uint16)]), 1)
