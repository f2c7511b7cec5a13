"""Tests that every compression detects truncation and damage anywhere in a file."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.compression import COMPRESSIONS, open_file
from tests.prepare.samples import COMPRESS

ALL = pytest.mark.parametrize("suffix", COMPRESSIONS)
# Text that does not compress to nothing, so that most bytes of a file hold content.
FIRST, SECOND = (random.Random(seed).randbytes(400).hex().encode() for seed in range(2))


def read(path, content, suffix):
    path.write_bytes(content)
    with open_file(str(path), COMPRESSIONS[suffix].name) as file:
        return file.read()


@ALL
def test_the_streams_of_a_file_are_joined(tmp_path, suffix):
    compress = COMPRESS[suffix]
    for texts in ([b""], [FIRST], [FIRST, SECOND], [FIRST, b"", SECOND], [b"a" * 10_000_000, b"b"]):
        content = b"".join(map(compress, texts))
        assert read(tmp_path / "a", content, suffix) == b"".join(texts)


@ALL
def test_a_file_truncated_anywhere_is_refused(tmp_path, suffix):
    first, second = COMPRESS[suffix](FIRST), COMPRESS[suffix](SECOND)
    content = first + second
    for length in range(len(content)):
        if length == len(first):  # what is left is a complete file
            assert read(tmp_path / "a", content[:length], suffix) == FIRST
            continue
        with pytest.raises(UserError, match="is damaged or not a") as error:
            read(tmp_path / "a", content[:length], suffix)
        assert "\n" not in str(error.value)


@ALL
def test_no_changed_byte_changes_the_text_unnoticed(tmp_path, suffix):
    content = COMPRESS[suffix](FIRST) + COMPRESS[suffix](SECOND)
    refused = 0
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        try:
            assert read(tmp_path / "a", bytes(damaged), suffix) == FIRST + SECOND
        except UserError:
            refused += 1
    assert refused > 0.98 * len(content), "only a few header fields do not matter"


@ALL
@pytest.mark.parametrize("content", [b"", b"plain text", b"\0" * 5000])
def test_what_is_not_compressed_is_refused(tmp_path, suffix, content):
    with pytest.raises(UserError, match=f"a is damaged or not a {suffix[1:]} file"):
        read(tmp_path / "a", content, suffix)


@ALL
def test_bytes_after_the_last_stream_are_refused(tmp_path, suffix):
    with pytest.raises(UserError, match="is damaged or not a"):
        read(tmp_path / "a", COMPRESS[suffix](FIRST) + b"garbage", suffix)


def test_xz_files_may_be_padded_with_null_bytes(tmp_path):
    compress = COMPRESS[".xz"]
    content = compress(FIRST) + b"\0" * 40_000 + compress(SECOND) + b"\0" * 4
    assert read(tmp_path / "a", content, ".xz") == FIRST + SECOND


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1, max_size=20))
@ALL
def test_reads_of_any_size_give_the_whole(tmp_path_factory, suffix, text, sizes):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(COMPRESS[suffix](text) + COMPRESS[suffix](text))
    with open_file(str(path), COMPRESSIONS[suffix].name) as file:
        assert b"".join([*map(file.read, sizes), file.read()]) == text + text


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"needs the data extra: pip install 'gpt2_jax\[data\]'"):
        read(tmp_path / "a", COMPRESS[".zst"](FIRST), ".zst")
