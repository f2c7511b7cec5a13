"""Reads TensorFlow's checkpoint format ("tensor bundle") without TensorFlow.

An index file in LevelDB's table format maps each variable's name to a protocol buffer with its
dtype, its shape and its position in the data files. The checksums of the index are verified; those
of the data are not, because that would take minutes. TensorFlow's sources describe both formats:
core/protobuf/tensor_bundle.proto and core/lib/io/table_format.txt.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.errors import UserError

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # after each block: its type of compression and a checksum
_DT_FLOAT, _DT_HALF = 1, 19
_DTYPES = {_DT_FLOAT: np.dtype("<f4"), _DT_HALF: np.dtype("<f2")}


class _Entry(NamedTuple):
    """Describes a variable; `offset` and `size` are bytes in data file number `shard`."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


class TensorBundle:
    """Reads the variables of a checkpoint.

    Attributes:
      shapes: the shape of every floating-point variable by name.
    """

    def __init__(self, prefix: Path) -> None:
        """Reads the index and checks that the data files hold every variable.

        Args:
          prefix: the path of the files without `.index` and `.data-00000-of-00001`.

        Raises:
          UserError: if files are missing, damaged or truncated.
        """
        index = prefix.with_name(prefix.name + ".index")
        try:
            records = dict(_table(index.read_bytes()))
            header = _fields(records.pop(b""))  # BundleHeaderProto: num_shards 1, endianness 2
            num_shards = operator.index(header[1])
            if header.get(2):
                raise ValueError("big-endian files are not supported")
            entries = {name.decode(): _entry(value) for name, value in records.items()}
        except (OSError, ValueError, LookupError, TypeError, struct.error) as error:
            raise UserError(
                f"{index} is not the index of a TensorFlow checkpoint: {error}"
            ) from error
        self._data, self._num_shards = prefix.with_name(f"{prefix.name}.data"), num_shards
        self._entries = {name: entry for name, entry in entries.items() if entry.dtype in _DTYPES}
        self.shapes = {name: entry.shape for name, entry in self._entries.items()}
        for name, entry in self._entries.items():
            self._check(name, entry)

    def read(self, name: str) -> np.ndarray:
        """Returns one variable, memory-mapped from its file."""
        entry = self._entries[name]
        return np.memmap(
            self._file(entry),
            _DTYPES[entry.dtype],
            mode="r",
            offset=entry.offset,
            shape=entry.shape,
        )

    def _file(self, entry: _Entry) -> Path:
        name = f"{self._data.name}-{entry.shard:05d}-of-{self._num_shards:05d}"
        return self._data.with_name(name)

    def _check(self, name: str, entry: _Entry) -> None:
        path = self._file(entry)
        if not path.is_file():
            raise UserError(f"{path} is missing: it holds {name}")
        if entry.size != math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize:
            raise UserError(
                f"{path}: {name} has {entry.size} bytes, which its shape {list(entry.shape)} does "
                "not need"
            )
        if entry.offset + entry.size > path.stat().st_size:
            raise UserError(f"{path} is truncated: {name} ends past the end of the file")


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (key, value) of an uncompressed LevelDB table, in order."""
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("it does not end with the footer of a table")
    _, _, at = _handle(footer, 0)
    for _, value in _block(content, *_handle(footer, at)[:2]):
        yield from _block(content, *_handle(value, 0)[:2])


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields (key, value) of one block; each key is stored as what differs from the one before."""
    block = content[offset : offset + size]
    if len(content) < offset + size + _TRAILER_BYTES:
        raise ValueError("a block ends past the end of the file")
    if content[offset + size] != 0:
        raise ValueError("compressed blocks are not supported")
    (checksum,) = struct.unpack_from("<I", content, offset + size + 1)
    if checksum != masked_crc32c(content[offset : offset + size + 1]):
        raise ValueError("a checksum does not match")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 * (restarts + 1)
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + rest]
        yield key, block[at + rest : at + rest + length]
        at += rest + length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Returns (offset, size) of a block, and the position after its handle."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _messages(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protocol buffer: an integer or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            value, at = int.from_bytes(data[at : at + length], "little"), at + length
        else:
            raise ValueError(f"wire type {wire} is not supported")
        yield number, value


def _fields(data: bytes) -> dict[int, Any]:
    return dict(_messages(data))


def _entry(data: bytes) -> _Entry:
    """Parses a BundleEntryProto: dtype 1, shape 2, shard_id 3, offset 4, size 5, slices 7."""
    fields = _fields(data)
    if 7 in fields:
        raise ValueError("partitioned variables are not supported")
    # TensorShapeProto: repeated dim 2, each with its size 1; a size of zero is left out.
    dims = [_fields(dim).get(1, 0) for number, dim in _messages(fields.get(2, b"")) if number == 2]
    dtype, shard, offset, size = (operator.index(fields.get(key, 0)) for key in (1, 3, 4, 5))
    return _Entry(dtype, tuple(map(operator.index, dims)), shard, offset, size)


def _crc32c_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_crc32c_of_byte(byte) for byte in range(256)]


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli), rotated and offset as LevelDB stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
