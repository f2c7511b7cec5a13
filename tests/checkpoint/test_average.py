"""The average of the parameters is a part of a checkpoint that can be read alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from tests.checkpoint.test_store import _abstract as abstract
from tests.checkpoint.test_store import _assert_identical as assert_identical
from tests.checkpoint.test_store import _save as save
from tests.checkpoint.test_store import _small as small


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    yield store
    store.close()


def test_the_average_of_the_parameters_is_read_alone(store: CheckpointStore) -> None:
    params, average, rest = small(), small(2.0), {"step": jnp.int32(3)}
    save(store, 3, params, rest | {"ema": average})
    got_params, got_rest = store.restore(3, abstract(params), abstract(rest | {"ema": average}))
    assert_identical(got_params, params)
    assert_identical(got_rest, rest | {"ema": average})
    with contextlib.closing(
        CheckpointStore(store.directory, read_only=True, average=True)
    ) as reader:
        assert reader.newest_good() == 3
        assert_identical(reader.restore_params(3, abstract(params)), average)
        save(store, 4, params, rest)
        assert "ema_decay=0" in (reader.damage(4) or "")


def test_whoever_resumes_and_reads_the_average_notices_its_damage(store: CheckpointStore) -> None:
    for step in (3, 4):
        save(store, step, small(), {"step": jnp.int32(step), "ema": small(2.0)})
    file = max((store.directory / "4" / "ema").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for average, good in ((False, 4), (True, 3)):
        with contextlib.closing(
            CheckpointStore(store.directory, read_only=True, average=average)
        ) as reader:
            assert reader.newest_good() == good
    assert store.newest_good() == 3
