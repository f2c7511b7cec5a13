"""Files of text in every format that `prepare` reads."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

KINDS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")


def pack(content, suffix):
    if suffix.endswith(".gz"):
        half = len(content) // 2
        return gzip.compress(content[:half]) + gzip.compress(content[half:])
    if suffix.endswith(".zst"):
        half = len(content) // 2
        compress = zstandard.ZstdCompressor().compress
        return compress(content[:half]) + compress(content[half:])
    return content


def write(path, documents, field="text"):
    """The documents in the format that the file's name says."""
    if path.name.endswith(".parquet"):
        table = pa.table({"id": list(range(len(documents))), field: documents})
        pq.write_table(table, path, row_group_size=7)
    else:
        lines = [json.dumps({"id": 1, field: each}, ensure_ascii=False) for each in documents]
        path.write_bytes(pack("\n".join(lines).encode(), path.name))
    return path
