"""Tests OpenAI's checkpoints whose index is damaged, or wrong under the right checksums."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.formats.tensor_bundle import TensorBundle, _table
from tests.formats.openai_folder import block, field, index_file, sealed, varint
from tests.fuzz.commands import cases
from tests.fuzz.damage import damaged, ends_well

_FIXTURE = Path(__file__).parents[1] / "formats" / "fixtures" / "openai"
_BUNDLE = "model.ckpt.index"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(_FIXTURE, tmp_path_factory.mktemp("fuzz") / "openai")


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
    dims = b"".join(field(2, field(1, length)) for length in shape)
    positions = [values.get(name, 0) for name in ("shard", "offset")]
    entry = b"".join(map(field, (1, 2, 3, 4, 5), (1, dims, *positions, size)))
    header = draw(st.just(field(1, values.get("shards", 1))) | _messages())
    return header, entry


@st.composite
def _messages(draw: Any) -> bytes:
    """Returns a protocol buffer with the fields of an entry or the header in any form."""
    content = b""
    for number in draw(st.lists(st.integers(1, 3) | st.integers(0, 8), max_size=6)):
        kind = draw(st.sampled_from(["number", "number", "bytes", "shape", "fixed", "wrong"]))
        if kind == "number":
            content += varint(number << 3) + varint(draw(_NUMBERS))
        elif kind == "fixed":
            content += varint(number << 3 | 5) + draw(st.binary(max_size=4))
        elif kind == "wrong":
            content += varint(number << 3 | draw(st.integers(3, 7))) + draw(st.binary(max_size=8))
        else:
            dims = draw(st.lists(_NUMBERS, max_size=3))
            shape = b"".join(field(2, field(1, dim)) for dim in dims)
            inner = shape if kind == "shape" else draw(st.binary(max_size=8))
            length = draw(st.sampled_from([len(inner)] * 5 + [0, 2**31, 2**64]))
            content += varint(number << 3 | 2) + varint(length) + inner
    return content


@cases(200)
@given(lies=_lies())
def test_any_numbers_in_an_index_of_a_bundle(folder: Path, lies: tuple[bytes, bytes]) -> None:
    header, entry = lies
    records = [(b"", header), *_RECORDS[1:3], (b"model/x", entry)]
    ends_well(folder / _BUNDLE, index_file(block(records)), lambda: _read_all(folder))


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
    content = index_file(block(records))
    ends_well(folder / _BUNDLE, content, lambda: _read_all(folder))


@cases(150)
@given(data=st.data())
def test_any_blocks_of_a_bundle(folder: Path, data: st.DataObject) -> None:
    whole = block(_RECORDS)[:-5]
    content = data.draw(st.just(whole) | damaged(whole) | damaged(whole[-20:]))
    numbers = data.draw(st.lists(_NUMBERS, max_size=4))
    footer = b"".join(map(varint, numbers)).ljust(40, b"\0")[:40] if numbers else b""
    ends_well(folder / _BUNDLE, index_file(sealed(content), footer), lambda: _read_all(folder))


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
