"""Writes documents to files in every format and compression that `prepare` reads."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from gpt2_jax.prepare.compression import COMPRESSIONS
from gpt2_jax.prepare.formats import FORMATS

COMPRESS = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": functools.partial(lzma.compress, preset=0),
    ".zst": lambda content: zstandard.ZstdCompressor(write_checksum=True).compress(content),
}
PACKED = ("", *COMPRESSIONS)
"""Endings of a file that may be compressed."""


def pack(content, name):
    """The content, compressed as two streams if the file's name says so."""
    suffix = "." + name.rpartition(".")[2]
    if suffix not in COMPRESS:
        return content
    half = len(content) // 2
    return COMPRESS[suffix](content[:half]) + COMPRESS[suffix](content[half:])


def _json_lines(documents, field):
    lines = [json.dumps({"id": 1, field: each}, ensure_ascii=False) for each in documents]
    return "\n".join(lines).encode()


def _parquet(documents, field):
    table = pa.table({"id": list(range(len(documents))), field: documents})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, row_group_size=7)
    return content.getvalue().to_pybytes()


# Formats of which a file holds many documents.
WRITERS = {"jsonl": _json_lines, "parquet": _parquet}
KINDS = tuple(
    suffix[1:] + packed
    for each in FORMATS
    if each.name in WRITERS
    for suffix in each.suffixes
    for packed in (PACKED if each.compressible else ("",))
)
"""Endings of the files that `write` can write, without the first dot."""


def write(path, documents, field="text"):
    """Writes the documents in the format that the file's name says, and returns the path."""
    (name,) = [
        each.name for each in FORMATS for suffix in each.suffixes if f"{suffix}." in f"{path.name}."
    ]
    path.write_bytes(pack(WRITERS[name](documents, field), path.name))
    return path
