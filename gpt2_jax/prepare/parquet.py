"""Parquet files: their row groups, and a column of text row by row."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.prepare.pieces import checked_text, extra

_ROWS = 64
_BUFFER_BYTES = 1 << 20


def row_groups(path: str) -> list[int]:
    """Bytes of each row group of a Parquet file; UserError for one that cannot be read."""
    with _arrow_errors(path):
        meta = _parquet().ParquetFile(path).metadata
        return [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]


def rows(path: str, start: int, stop: int, field: str) -> Iterator[tuple[str, str]]:
    """(where, text) of each row of row groups start .. stop-1; stop -1 is the last.

    Raises:
      UserError: for a damaged or missing file, a missing column, or a value that is no text.
    """
    with _arrow_errors(path):
        file = _parquet().ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        if field not in file.schema_arrow.names:
            names = shortened(", ".join(file.schema_arrow.names), 80)
            raise UserError(
                f"{path} has no column {field!r} (it has {names}); name it with --text_field"
            )
        groups = range(file.num_row_groups)[start : stop if stop >= 0 else None]
        row = sum(file.metadata.row_group(i).num_rows for i in range(start))
        for batch in file.iter_batches(_ROWS, row_groups=list(groups), columns=[field]):
            for value in batch.column(0).to_pylist():
                where = f"{path}, row {row}"
                yield where, checked_text(value, where, field)
                row += 1


def _parquet() -> Any:
    return extra("data", "pyarrow.parquet", "reading Parquet files")


@contextlib.contextmanager
def _arrow_errors(path: str) -> Iterator[None]:
    arrow = extra("data", "pyarrow", "reading Parquet files")
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        if number := getattr(error, "errno", None):  # of the system; pyarrow gives damage none
            raise UserError(f"cannot read {path}: {os.strerror(number)}") from None
        reason = shortened(str(error), 120)
        raise UserError(f"{path} is damaged or no Parquet file: {reason}") from None
