"""Parquet files: the text in each row's column is one document."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.files.extras import import_extra
from gpt2_jax.prepare.pieces import InvalidRowError, Piece, checked_text, split_documents
from gpt2_jax.prepare.slices import Range, Slice
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Rows decoded at a time.
_ROWS = 64
_BUFFER_BYTES = 1 << 20


def row_group_ranges(path: str, size: int, slice_bytes: int) -> list[Range]:
    """Returns a range per row group, which is as little as can be read of a file by itself.

    Raises:
      UserError: if the file is damaged or missing.
    """
    with _arrow_errors(path):
        meta = _parquet().ParquetFile(path).metadata
        sizes = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
    return [Range(i, i + 1, group_bytes) for i, group_bytes in enumerate(sizes)]


def read(file_slice: Slice, tokenizer: Tokenizer, text_field: str) -> Iterator[Piece]:
    """Yields the texts of a range of row groups.

    A row whose value is not a string, or is not UTF-8, is yielded as an invalid row.

    Raises:
      UserError: if the file is damaged or missing, or has no such column.
    """
    return split_documents(
        _rows(file_slice.path, file_slice.start, file_slice.stop, text_field), tokenizer
    )


def _rows(
    path: str, start: int, stop: int, field: str
) -> Iterator[tuple[str, str | InvalidRowError]]:
    """Yields a name for messages and the text of each row of row groups start .. stop-1."""
    with _arrow_errors(path):
        file = _parquet().ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        if field not in file.schema_arrow.names:
            names = shortened(", ".join(file.schema_arrow.names), 80)
            raise UserError(
                f"{path} has no column {field!r} (its columns: {names}); name it with --text_field"
            )
        groups = range(file.num_row_groups)[start : stop if stop >= 0 else None]
        row = sum(file.metadata.row_group(i).num_rows for i in range(start))
        for batch in file.iter_batches(_ROWS, row_groups=list(groups), columns=[field]):
            for scalar in batch.column(0):
                try:
                    text = _text(scalar, field)
                except InvalidRowError as error:
                    text = error
                yield f"{path}, row {row}", text
                row += 1


def _text(scalar: Any, field: str) -> str:
    """Returns the text of one value; raises InvalidRowError if it is none."""
    try:
        return checked_text(scalar.as_py(), field)
    except UnicodeDecodeError as error:
        raise InvalidRowError(f"is not UTF-8 at byte {error.start} of {field!r}") from None


def _parquet() -> Any:
    return import_extra("pyarrow.parquet", extra="data", needed_by="reading Parquet files")


@contextlib.contextmanager
def _arrow_errors(path: str) -> Iterator[None]:
    """Raises pyarrow's errors in the block as UserError."""
    arrow = import_extra("pyarrow", extra="data", needed_by="reading Parquet files")
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        if number := getattr(error, "errno", None):  # from the system; errors of pyarrow have none
            raise UserError(f"cannot read {path}: {os.strerror(number)}") from None
        reason = shortened(str(error), 120)
        raise UserError(f"{path} is damaged or not a Parquet file: {reason}") from None
