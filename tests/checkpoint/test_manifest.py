"""Whatever happens to the files of a step, only what was saved is ever restored."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.checkpoint import manifest
from gpt2_jax.checkpoint.manifest import NAME
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.errors import StorageError
from gpt2_jax.formats.examine import examine_run

_STEPS = (10, 20, 30)


def _state(step: int) -> tuple[Any, Any]:
    kernel = jax.random.normal(jax.random.key(step), (24, 40))
    params = {"h": {"kernel": kernel}, "scale": jnp.arange(40.0) + step}
    return params, {"mu": {"kernel": kernel * 2}, "step": jnp.int32(step)}


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest") / "checkpoints"
    with contextlib.closing(CheckpointStore(folder, keep=9)) as store:
        for step in _STEPS:
            store.wait()
            store.save(step, *_state(step), {"step": step})
        store.wait()
    return folder


def _assert_is_what_was_saved(store: CheckpointStore, step: int) -> None:
    params, rest = _state(step)
    restored = store.restore(step, _shapes(params), _shapes(rest))
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, (params, rest)))
    assert store.meta(step) == {"step": step}


def _flip(folder: Path, draw: random.Random) -> None:
    path = _file(folder, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _truncate(folder: Path, draw: random.Random) -> None:
    path = _file(folder, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def _extend(folder: Path, draw: random.Random) -> None:
    path = _file(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 100)))


def _delete(folder: Path, draw: random.Random) -> None:
    _file(folder, draw).unlink()


def _delete_folder(folder: Path, draw: random.Random) -> None:
    shutil.rmtree(folder / draw.choice(["params", "rest", "meta", "params/d"]))


def _empty(folder: Path, draw: random.Random) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _exchange(folder: Path, draw: random.Random) -> None:
    """Replaces a file by one of another step."""
    path = _file(folder, draw)
    other = folder.with_name(
        str(draw.choice([step for step in _STEPS if step != int(folder.name)]))
    )
    theirs = [file for file in _files(other) if file.parent.name == path.parent.name]
    path.write_bytes(draw.choice(theirs).read_bytes() if theirs else b"of another step")


def _files(folder: Path) -> list[Path]:
    # Orbax writes these two after the manifest, and reads no value from them.
    spared = ("_CHECKPOINT_METADATA", "commit_success.txt")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in found if path.relative_to(folder).as_posix() not in spared]


def _file(folder: Path, draw: random.Random) -> Path:
    return draw.choice(_files(folder))


_FAULTS = (_flip, _truncate, _extend, _delete, _delete_folder, _empty, _exchange)


@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.slow)], ids=str
)
def test_corruptions_never_restore_a_wrong_value(
    original: Path, tmp_path: Path, seeds: range, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest step that is intact is used, or all are refused."""
    outcomes = []
    for seed in seeds:
        draw = random.Random(seed)
        folder = Path(shutil.copytree(original, tmp_path / str(seed)))
        hit = draw.sample(_STEPS, draw.randrange(1, 4))
        before = {step: _read_all(folder / str(step)) for step in _STEPS}
        for step in hit:
            fault: Callable[[Path, random.Random], None] = draw.choice(_FAULTS)
            fault(folder / str(step), draw)
        if draw.random() < 0.3:  # stray folders beside them
            (folder / str(draw.choice([5, 25, 40]))).mkdir()
            (folder / "notes").mkdir()
        changed = [step for step in _STEPS if _read_all(folder / str(step)) != before[step]]
        good = [step for step in _STEPS if step not in changed]
        with contextlib.closing(CheckpointStore(folder, keep=9)) as store:
            if not good:
                state = _read_all(folder)
                with pytest.raises(StorageError, match=r"every checkpoint in .* is damaged"):
                    store.newest_good()
                assert _read_all(folder) == state
                outcomes.append(None)
                continue
            assert store.newest_good() == max(good), (seed, hit)
            _assert_is_what_was_saved(store, max(good))
            warnings = capsys.readouterr().err
            warned = [step for step in _STEPS if f"{folder / str(step)} is damaged" in warnings]
            assert warned == [step for step in changed if step > max(good)]
            outcomes.append(max(good))
        shutil.rmtree(folder)
    assert set(outcomes) == {10, 20, 30, None}


def _read_all(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_that_no_manifest_lists_change_no_value(original: Path, tmp_path: Path) -> None:
    """The files that Orbax writes after the manifest may be damaged or missing."""
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        for content in (None, b"", b"\xff\x00 no JSON"):
            folder = Path(shutil.copytree(original, tmp_path / "c"))
            path = folder / "30" / name
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            with contextlib.closing(CheckpointStore(folder, keep=9)) as store:
                assert store.newest_good() == 30
                _assert_is_what_was_saved(store, 30)
            shutil.rmtree(folder)


def test_a_step_set_aside_can_be_saved_again(original: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "c"))
    _flip(folder / "30", random.Random(0))
    with contextlib.closing(CheckpointStore(folder, keep=9)) as store:
        assert store.newest_good() == 20
        store.save(30, *_state(30), {"step": 30})
        store.wait()
        assert store.newest_good() == 30
        _assert_is_what_was_saved(store, 30)
    assert (folder / "30.damaged" / NAME).is_file()


def test_doctor_reports_what_is_wrong_with_each_step(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "run" / "checkpoints"))
    next((folder / "30" / "params" / "d").iterdir()).unlink()
    shutil.copytree(folder / "10", folder / "40")
    shutil.rmtree(folder / "20" / "rest")
    (folder / "50.orbax-checkpoint-tmp").mkdir()
    before = _read_all(folder)
    report = examine_run(tmp_path / "run")
    problems = {step["step"]: step["problem"] for step in report["steps"]}
    assert list(problems) == [40, 30, 20, 10]
    assert problems[10] is None
    assert problems[40] == "it is a copy of step 10"
    assert problems[30].startswith("params/d/") and problems[30].endswith(" is missing")
    assert problems[20].startswith("rest/") and problems[20].endswith(" is missing")
    assert [other["name"] for other in report["others"]] == ["50.orbax-checkpoint-tmp"]
    assert main(["doctor", "--model", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert "the newest good step is 10" in output
    assert output.count("damaged: ") == 3
    (folder / "10" / NAME).unlink()
    assert main(["doctor", "--model", str(tmp_path / "run"), "--json"]) == 78
    (folder / "10" / NAME).write_bytes(before[str(folder / "10" / NAME)])
    assert _read_all(folder) == before
    assert main(["doctor", "--model", str(tmp_path / "nothing")]) == 2


def test_a_file_that_cannot_be_read_back_fails_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with contextlib.closing(CheckpointStore(tmp_path / "checkpoints")) as store:
        with monkeypatch.context() as patched:
            patched.setattr(manifest, "_describe_file", unreadable)
            with pytest.raises(StorageError, match="Input/output error"):
                store.save(10, *_state(10), {"step": 10})
                store.wait()
        assert store.steps() == []
        store.save(10, *_state(10), {"step": 10})
        store.wait()
        _assert_is_what_was_saved(store, 10)
        with monkeypatch.context() as patched:
            patched.setattr(manifest, "_describe_file", unreadable)
            assert "cannot be read: Input/output error" in str(store.damage(10))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT])
def test_a_temporary_failure_of_the_disk_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = tmp_path / "checkpoints"
    with contextlib.closing(CheckpointStore(folder)) as store:
        store.save(10, *_state(10), {"step": 10})
        store.wait()
        before = _read_all(folder)

        def fails(path: Path) -> Any:
            raise OSError(number, os.strerror(number), str(path))

        with monkeypatch.context() as patched:
            patched.setattr(manifest, "_describe_file", fails)
            with pytest.raises(StorageError, match=os.strerror(number)):
                store.newest_good()
        assert _read_all(folder) == before
        assert store.newest_good() == 10
