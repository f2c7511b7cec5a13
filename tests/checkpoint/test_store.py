"""The store: exact restores, what it keeps, what it ignores, and errors that name the leaf."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpt2_jax.checkpoint import commit
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.training.optimizer import make_optimizer
from tests.inference.tiny import noisy_params, tiny_config

_META = {"step": 3, "config": {"model": {"num_layers": 2}}, "text": 'é "quoted"\n', "none": None}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def _small(value: float = 1.0) -> dict[str, Any]:
    return {"a": {"kernel": jnp.full((2, 3), value)}, "b": jnp.arange(4, dtype=jnp.int32)}


def _save(store: CheckpointStore, step: int, params: Any = None, rest: Any = None) -> None:
    params = _small() if params is None else params
    store.save(step, params, {"step": jnp.int32(step)} if rest is None else rest, {"step": step})
    store.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    yield store
    store.close()


def _assert_identical(got: Any, expected: Any) -> None:
    """Same structure, dtypes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_params_optimizer_state_and_meta_come_back_to_the_bit(store: CheckpointStore) -> None:
    config = tiny_config()
    optimizer = make_optimizer(config)
    params = noisy_params(config)
    gradients = jax.tree.map(lambda leaf: jnp.sin(leaf * 100), params)

    @jax.jit  # one by one the operations take longer to compile
    def state_after(gradients: Any, params: Any) -> Any:
        return optimizer.update(gradients, optimizer.init(params), params, learning_rate=0.1)[1]

    opt_state = state_after(gradients, params)
    rest = {"step": jnp.int32(3), "opt_state": opt_state, "bad_steps": jnp.int32(1)}
    store.save(3, params, rest, _META)
    store.wait()

    got_params, got_rest = store.restore(3, _abstract(params), _abstract(rest))
    _assert_identical(got_params, params)
    # Structure included: optax's named tuples, not dictionaries of their fields.
    _assert_identical(got_rest, rest)
    _assert_identical(store.restore_params(3, _abstract(params)), params)
    assert store.meta(3) == _META


def test_values_that_are_not_numbers_and_small_dtypes_survive(store: CheckpointStore) -> None:
    params = {
        "nan": jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45], jnp.float32),
        "half": jnp.array([1.1, -2.7], jnp.bfloat16),
        "scalar": jnp.float32(3),
        "empty_name_like": {"0": jnp.zeros((1, 1))},
    }
    _save(store, 1, params)
    _assert_identical(store.restore_params(1, _abstract(params)), params)


def test_what_changes_after_save_returns_is_not_saved(store: CheckpointStore) -> None:
    """Saving goes on in the background, while training donates the arrays it was given."""
    params = _small()
    store.save(1, params, {"step": jnp.int32(1)}, {})
    jax.tree.map(lambda leaf: leaf.delete(), params)
    store.wait()
    _assert_identical(store.restore_params(1, _abstract(_small())), _small())


def test_arrays_come_back_onto_any_mesh(store: CheckpointStore) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    kernel = jnp.arange(32.0).reshape(4, 8)
    _save(store, 1, {"kernel": jax.device_put(kernel, NamedSharding(mesh, PartitionSpec("x")))})
    for spec in (PartitionSpec(), PartitionSpec("x", "y"), PartitionSpec(None, ("x", "y"))):
        sharding = NamedSharding(mesh, spec)
        abstract = {"kernel": jax.ShapeDtypeStruct((4, 8), jnp.float32, sharding=sharding)}
        restored = store.restore_params(1, abstract)["kernel"]
        assert restored.sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_array_equal(restored, kernel)


def test_the_newest_are_kept(store: CheckpointStore) -> None:
    for step in (1, 2, 5, 10):
        _save(store, step)
    assert store.steps() == [10, 5]
    folders = [path.name for path in store.directory.iterdir() if path.name.isdigit()]
    assert sorted(folders) == ["10", "5"]


def test_multiples_of_keep_every_are_kept_as_well(tmp_path: Path) -> None:
    with contextlib.closing(CheckpointStore(tmp_path, keep=2, keep_every=4)) as store:
        for step in (2, 4, 6, 8, 10, 11):
            _save(store, step, _small(float(step)))
        assert store.steps() == [11, 10, 8, 4]
    # Those of an earlier start stay, too, and a damaged newest step is replaced by one of them.
    for step in (11, 10):
        (tmp_path / str(step) / "manifest.json").write_bytes(b"")
    with contextlib.closing(CheckpointStore(tmp_path, keep=1, keep_every=4)) as store:
        assert store.newest_good() == 8
        _assert_identical(store.restore_params(8, _abstract(_small())), _small(8.0))
        for step in (9, 10):
            _save(store, step)
        assert store.steps() == [10, 8, 4]


def test_saving_a_saved_step_leaves_it_as_it_is(store: CheckpointStore) -> None:
    _save(store, 4, _small(1.0))
    before = _read_all(store.directory)
    _save(store, 4, _small(2.0))
    assert _read_all(store.directory) == before
    _assert_identical(store.restore_params(4, _abstract(_small())), _small(1.0))


def _read_all(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stray_and_half_written_folders_are_not_steps(
    store: CheckpointStore, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(store, 3)
    (store.directory / "7").mkdir()
    (store.directory / "8" / "params").mkdir(parents=True)
    (store.directory / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (store.directory / "notes").mkdir()
    (store.directory / "11").write_text("a file", encoding="utf-8")
    before = _read_all(store.directory)
    reader = CheckpointStore(store.directory, read_only=True)
    assert reader.newest_good() == 3
    assert _read_all(store.directory) == before
    warnings = capsys.readouterr().err
    assert warnings.count("warning: ") == 2
    assert "checkpoints/7" in warnings and "checkpoints/8" in warnings
    assert store.newest_good() == 3
    assert store.steps() == [3]
    assert (store.directory / "8.damaged" / "params").is_dir()
    assert (store.directory / "11").is_file()


def test_a_stray_folder_neither_blocks_a_save_nor_counts_among_those_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointStore(folder, keep=2)) as first:
        _save(first, 1)
    (folder / "2").mkdir()
    (folder / "3" / "params").mkdir(parents=True)
    with contextlib.closing(CheckpointStore(folder, keep=2)) as store:
        assert store.newest_good() == 1
        _save(store, 2)
        assert store.steps() == [2, 1]
        assert store.newest_good() == 2


def test_a_reader_sees_what_is_saved_after_it_opened(store: CheckpointStore) -> None:
    _save(store, 1)
    reader = CheckpointStore(store.directory, read_only=True)
    assert reader.steps() == [1]
    _save(store, 2)
    assert reader.steps() == [2, 1]
    _assert_identical(reader.restore_params(2, _abstract(_small())), _small())
    reader.close()


def test_a_reader_makes_no_folder_and_changes_none(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    reader = CheckpointStore(folder, read_only=True)
    assert reader.steps() == []
    reader.close()
    assert not folder.exists()
    assert not folder.parent.exists()

    writer = CheckpointStore(folder, keep=3)
    for step in (1, 2, 3):
        _save(writer, step)
    writer.close()
    before = _read_all(folder)
    reader = CheckpointStore(folder, read_only=True)
    assert reader.steps() == [3, 2, 1]
    reader.restore_params(1, _abstract(_small()))
    reader.meta(2)
    reader.close()
    assert _read_all(folder) == before


def _refused(store: CheckpointStore, abstract: Any, rest: Any = None) -> str:
    with pytest.raises(UserError) as error:
        if rest is None:
            store.restore_params(3, abstract)
        else:
            store.restore(3, abstract, rest)
    assert "\n" not in str(error.value)
    assert "checkpoints/3" in str(error.value)
    return str(error.value)


def test_another_dtype_shape_or_tree_is_refused_by_the_name_of_the_leaf(
    store: CheckpointStore,
) -> None:
    _save(store, 3)
    good = _abstract(_small())
    sharding = jax.tree.leaves(good)[0].sharding

    def leaf(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    message = _refused(store, good | {"a": {"kernel": leaf((2, 3), jnp.bfloat16)}})
    assert all(part in message for part in ("a/kernel", "float32[2, 3]", "bfloat16[2, 3]"))
    message = _refused(store, good | {"a": {"kernel": leaf((3, 2), jnp.float32)}})
    assert all(part in message for part in ("a/kernel", "[2, 3]", "[3, 2]"))
    message = _refused(store, good | {"c": leaf((1,), jnp.float32)})
    assert "has no" in message
    assert "leaf c" in message
    message = _refused(store, {"a": good["a"]})
    assert "unexpected" in message
    assert "leaf b" in message
    message = _refused(store, good, {"count": leaf((), jnp.int32)})
    assert "rest leaf count" in message


def test_a_missing_step_is_a_storage_error(store: CheckpointStore) -> None:
    _save(store, 3)
    abstract = _abstract(_small())
    for read in (store.meta, lambda step: store.restore_params(step, abstract)):
        with pytest.raises(StorageError) as error:
            read(4)
        assert "\n" not in str(error.value)
        assert "checkpoints/4" in str(error.value)


def test_damaged_arrays_are_a_storage_error(store: CheckpointStore) -> None:
    _save(store, 3)
    # The data alone, and then what lists it as well.
    for pattern in ("d/*", "manifest.ocdbt", "_METADATA"):
        for path in (store.directory / "3" / "params").rglob(pattern):
            path.write_bytes(b"")
        with pytest.raises(StorageError) as error:
            store.restore_params(3, _abstract(_small()))
        assert "\n" not in str(error.value)
        assert "checkpoints/3" in str(error.value)
        assert "tensorstore_spec" not in str(error.value)


def test_a_model_can_be_read_although_its_optimizer_state_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointStore(folder, keep=2)) as store:
        for step in (2, 3):
            _save(store, step, _small(float(step)))
    for path in (folder / "3" / "rest").rglob("d/*"):
        path.write_bytes(b"")
    with contextlib.closing(CheckpointStore(folder, read_only=True)) as reader:
        assert reader.newest_good() == 3
        _assert_identical(reader.restore_params(3, _abstract(_small())), _small(3.0))
    with contextlib.closing(CheckpointStore(folder)) as store:
        assert store.newest_good() == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on the disk"),
        (TimeoutError(), "TimeoutError"),  # asyncio raises it without a message
    ],
)
def test_a_failed_save_leaves_nothing_and_the_next_may_succeed(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    _save(store, 1)
    before = _read_all(store.directory)

    def fail(folder: Path, step: int) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(commit, "write_manifest", fail)
        with pytest.raises(StorageError, match=message):
            _save(store, 2)
    assert _read_all(store.directory) == before
    _save(store, 2, _small(2.0))
    assert store.newest_good() == 2
    _assert_identical(store.restore_params(2, _abstract(_small())), _small(2.0))


def test_reading_is_silent(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    _save(store, 3)
    with contextlib.closing(CheckpointStore(store.directory, read_only=True)) as reader:
        reader.restore_params(3, _abstract(_small()))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file", encoding="utf-8")
    with pytest.raises((StorageError, UserError)) as error:
        _save(CheckpointStore(tmp_path / "checkpoints"), 1)
    assert "\n" not in str(error.value)
