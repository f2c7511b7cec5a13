"""Tests that a data folder of any bytes opens, or gives a UserError of one line."""

from __future__ import annotations

import copy
import json
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2_jax.data.meta import check_sha256, read_meta
from gpt2_jax.data.shard_file import MAGIC
from gpt2_jax.data.shards import SPLITS, check_vocab, fingerprint, open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document

FUZZ = settings(max_examples=200, derandomize=True, deadline=None)
# Far more memory than any of the files below should take, far less than a header can claim.
MOST_BYTES = 16 << 20

int32 = st.integers(-(2**31), 2**31 - 1)
NAMES = st.sampled_from(["train.bin", "val.bin", "train_000000.bin", "llm_val_1.bin", "other.bin"])


def outcome(call, *arguments):
    """Returns what the call does, or None for a UserError of one line."""
    tracemalloc.start()
    try:
        return call(*arguments)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES


def look_at(folder):
    """Calls everything that reads a folder of shards."""
    for split in SPLITS:
        tokens = outcome(open_tokens, folder, split)
        if tokens is not None:
            assert len(tokens.read(0, len(tokens))) == len(tokens) > 0
            outcome(check_vocab, tokens, 100)
    assert len(outcome(fingerprint, folder) or "none") in (64, 4)
    meta = outcome(read_meta, folder)
    if meta is not None:
        outcome(check_sha256, folder, meta)
        outcome(prepare_in, folder)


def prepare_in(folder):
    prepare(DOCUMENTS, "byte", folder, val_fraction=0.3, tokens_per_shard=10)


@st.composite
def shards(draw):
    """Draws a shard whose header may be wrong anywhere, and which may be truncated."""
    tokens = draw(st.lists(st.integers(0, 2**16 - 1), max_size=8))
    magics = st.sampled_from([MAGIC, MAGIC, MAGIC, 20240801, 20240522]) | int32
    header = np.zeros(256, "<i4")
    header[0] = draw(magics)
    header[1] = draw(st.just(1) | int32)
    header[2] = draw(st.just(len(tokens)) | int32)
    header[3:5] = draw(st.just((0, 0)) | st.tuples(int32, int32))
    content = header.tobytes() + np.array(tokens, "<u2").tobytes()
    return content[: draw(st.just(len(content)) | st.integers(0, len(content)))]


@FUZZ
@given(st.dictionaries(NAMES, shards() | st.binary(max_size=40), min_size=1))
@example({"train.bin": b""})
@example({"train.bin": b"\0" * 5000, "val.bin": b"\0"})
def test_any_bytes_in_shards(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        look_at(folder)


DOCUMENTS = [Document("one", "some text"), Document("two", "and more")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepared data, and its meta.json before a test replaces it."""
    folder = tmp_path_factory.mktemp("fuzz") / "data"
    prepare_in(folder)
    return folder, json.loads((folder / "meta.json").read_text())


def places(value, path=()):
    """Yields the path to every value inside plain values."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(value, path, new):
    """Returns the value with another at the end of the path."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


NASTY = [None, True, -1, 10**30, 0.5, float("nan"), [], {}, [{}]]
NASTY += ["", ".", "a\0b", "a\nb", "\ud800", "x" * 5000, "../val_000000.bin", "/dev/zero"]


def test_any_value_of_meta_json_may_be_another(prepared):
    folder, meta = prepared
    for place in places(meta):
        for value in NASTY:
            (folder / "meta.json").write_text(json.dumps(put(meta, place, value)))
            look_at(folder)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_several_values_of_meta_json_may_be_anything(prepared, data):
    folder, meta = prepared
    for _ in range(data.draw(st.integers(1, 3))):
        meta = put(meta, data.draw(st.sampled_from(list(places(meta)))), data.draw(plain))
    (folder / "meta.json").write_text(json.dumps(meta))
    look_at(folder)


@FUZZ
@given(data=st.data())
@example(data=None)
def test_any_bytes_in_meta_json(prepared, data):
    folder, meta = prepared
    content = json.dumps(meta).encode()
    if data is None:
        content = b'{"splits":' + b"[" * 200_000
    else:
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content)))
        content = content[:start] + data.draw(st.binary(max_size=20)) + content[stop:]
    (folder / "meta.json").write_bytes(content)
    look_at(folder)
