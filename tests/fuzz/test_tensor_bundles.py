"""Tests OpenAI's checkpoints whose index is damaged, or wrong under the right checksums."""

from __future__ import annotations

import math
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.formats.tensor_bundle import TensorBundle, _masked_crc32c, _table
from tests.fuzz.commands import cases
from tests.fuzz.damage import damaged, ends_well

_FIXTURE = Path(__file__).parents[1] / "formats" / "fixtures" / "openai"
_BUNDLE = "model.ckpt.index"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(_FIXTURE, tmp_path_factory.mktemp("fuzz") / "openai")


def _varint(number: int) -> bytes:
    more = b""
    while number >= 0x80:
        more, number = more + bytes([number & 0x7F | 0x80]), number >> 7
    return more + bytes([number])


def _block(records: list[tuple[bytes, bytes]]) -> bytes:
    """Returns a block of a LevelDB table with its trailer, without shared prefixes of keys."""
    entries = b"".join(
        b"\0" + _varint(len(key)) + _varint(len(value)) + key + value for key, value in records
    )
    return _sealed(entries + struct.pack("<II", 0, 1))


def _sealed(block: bytes) -> bytes:
    return block + b"\0" + struct.pack("<I", _masked_crc32c(block + b"\0"))


def _index_file(data: bytes, footer: bytes = b"") -> bytes:
    """Returns a table of one block of data, with the right checksums."""
    handle = _varint(0) + _varint(len(data) - 5)
    index = _block([(b"~", handle)])
    where = _varint(0) + _varint(0) + _varint(len(data)) + _varint(len(index) - 5)
    return data + index + (footer or where.ljust(40, b"\0")) + struct.pack("<Q", 0xDB4775248B80FB57)


_RECORDS = list(_table((_FIXTURE / _BUNDLE).read_bytes()))
_NUMBERS = st.sampled_from([0, 1, 2, 3, 24, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**20000])


@st.composite
def _lies(draw: Any) -> tuple[bytes, bytes]:
    """Returns (header, entry) of a valid bundle in which up to two numbers are wrong."""
    lies = draw(st.lists(st.sampled_from(["shape", "shards", "shard", "offset", "size"])))
    values = {name: draw(_NUMBERS) for name in lies[:2]}
    shape = draw(st.lists(_NUMBERS, min_size=1, max_size=3)) if "shape" in values else [2, 3]
    whole = 4 * math.prod(shape)
    size = values.get("size", draw(st.sampled_from([whole, whole % 2**64])))  # as in C++
    dims = b"".join(_field(2, _field(1, length)) for length in shape)
    positions = [values.get(name, 0) for name in ("shard", "offset")]
    entry = b"".join(map(_field, (1, 2, 3, 4, 5), (1, dims, *positions, size)))
    header = draw(st.just(_field(1, values.get("shards", 1))) | _messages())
    return header, entry


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


@st.composite
def _messages(draw: Any) -> bytes:
    """Returns a protocol buffer with the fields of an entry or the header in any form."""
    content = b""
    for number in draw(st.lists(st.integers(1, 3) | st.integers(0, 8), max_size=6)):
        kind = draw(st.sampled_from(["number", "number", "bytes", "shape", "fixed", "wrong"]))
        if kind == "number":
            content += _varint(number << 3) + _varint(draw(_NUMBERS))
        elif kind == "fixed":
            content += _varint(number << 3 | 5) + draw(st.binary(max_size=4))
        elif kind == "wrong":
            content += _varint(number << 3 | draw(st.integers(3, 7))) + draw(st.binary(max_size=8))
        else:
            dims = draw(st.lists(_NUMBERS, max_size=3))
            shape = b"".join(_field(2, _field(1, dim)) for dim in dims)
            inner = shape if kind == "shape" else draw(st.binary(max_size=8))
            length = draw(st.sampled_from([len(inner)] * 5 + [0, 2**31, 2**64]))
            content += _varint(number << 3 | 2) + _varint(length) + inner
    return content


@cases(200)
@given(lies=_lies())
def test_any_numbers_in_an_index_of_a_bundle(folder: Path, lies: tuple[bytes, bytes]) -> None:
    header, entry = lies
    records = [(b"", header), *_RECORDS[1:3], (b"model/x", entry)]
    ends_well(folder / _BUNDLE, _index_file(_block(records)), lambda: _read_all(folder))


@cases(200)
@given(data=st.data())
def test_any_index_of_a_bundle_with_the_right_checksums(folder: Path, data: st.DataObject) -> None:
    records = list(_RECORDS)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.just(0) | st.integers(0, len(records) - 1))
        key, value = records[at]
        more = data.draw(_messages() | damaged(value))
        value = data.draw(st.sampled_from([more, value + more]))
        records[at] = data.draw(st.just(key) | st.binary(max_size=8)), value
    content = _index_file(_block(records))
    ends_well(folder / _BUNDLE, content, lambda: _read_all(folder))


@cases(150)
@given(data=st.data())
def test_any_blocks_of_a_bundle(folder: Path, data: st.DataObject) -> None:
    whole = _block(_RECORDS)[:-5]
    block = data.draw(st.just(whole) | damaged(whole) | damaged(whole[-20:]))
    numbers = data.draw(st.lists(_NUMBERS, max_size=4))
    footer = b"".join(map(_varint, numbers)).ljust(40, b"\0")[:40] if numbers else b""
    ends_well(folder / _BUNDLE, _index_file(_sealed(block), footer), lambda: _read_all(folder))


@cases(100)
@given(content=damaged((_FIXTURE / _BUNDLE).read_bytes()))
def test_any_damage_of_a_bundle(folder: Path, content: bytes) -> None:
    ends_well(folder / _BUNDLE, content, lambda: _read_all(folder))


def _read_all(folder: Path) -> None:
    """Reads every variable that the bundle lists, except empty ones, which no model has."""
    bundle = TensorBundle(folder / "model.ckpt")
    for name, shape in bundle.shapes.items():
        if 0 not in shape:
            bundle.read(name).sum()
