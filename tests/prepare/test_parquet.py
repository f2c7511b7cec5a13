"""Tests of Parquet files: their row groups, and what is refused."""

from __future__ import annotations

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.inputs import read_inputs
from tests.prepare.reading import read
from tests.prepare.samples import write

TEXTS = [f"text number {i}" for i in range(20)]


def test_a_big_file_is_split_into_its_row_groups(tmp_path):
    path = write(tmp_path / "a.parquet", TEXTS)
    items = list(read_inputs([path]).work_items(1))
    slices = [(each.start, each.stop) for item in items for each in item.slices]
    assert slices == [(0, 1), (1, 2), (2, 3)]
    documents = read(read_inputs([path]), 1)
    assert [document.name for document in documents] == [f"{path}, row {i}" for i in range(20)]


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path):
    path = write(tmp_path / "a.parquet", TEXTS)
    with pytest.raises(UserError, match=r"no column 'body' \(its columns: id, text\)"):
        read(read_inputs([path], text_field="body"))


def test_a_value_that_is_not_a_string_is_named_by_its_row(tmp_path):
    path = write(tmp_path / "a.parquet", ["one", None])
    with pytest.raises(UserError, match=r"a\.parquet, row 1, has None as 'text', .* a string"):
        read(read_inputs([path]))


@pytest.mark.parametrize("item_bytes", [1 << 24, 1])
def test_a_damaged_file_is_named(tmp_path, item_bytes):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(UserError, match=r"a\.parquet is damaged or not a Parquet file"):
        read(read_inputs([tmp_path / "a.parquet"]), item_bytes)


def test_a_compressed_file_is_refused(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"a\.parquet\.gz: .* cannot be compressed as a whole"):
        read(read_inputs([tmp_path / "a.parquet.gz"]))
